"""CLIP, SigLIP and DINO trunks: the processor's pixels, texts alone, cosine scores, gradients."""

import numpy as np
import pytest
import torch
from PIL import Image

from embodied_reward.errors import ConfigError
from embodied_reward.scoring import Role, ScoreRequest, ScoringCore, Status
from embodied_reward.scoring.cosine import CosineHead, cosine_scorer
from embodied_reward.scoring.differentiable import score_images
from embodied_reward.scoring.language.small import word_tokenizer
from embodied_reward.scoring.pixels import PixelPipeline
from embodied_reward.scoring.scorer import Scorer
from embodied_reward.scoring.transformers_trunk import TransformersTrunk, load_trunk

SIZE = 32
TEXTS = ("a red cube", "the robot has opened the drawer all the way", "cube")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


def clip():
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    tokenizer = word_tokenizer(TEXTS, end=True)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "eos_token_id": 3}
    text |= {"bos_token_id": 2, "pad_token_id": 0}
    vision = {"image_size": SIZE, "patch_size": 8}
    config = CLIPConfig(
        text_config={**SHAPE, **text}, vision_config={**SHAPE, **vision}, projection_dim=24
    )
    crop = {"height": SIZE, "width": SIZE}
    return (
        CLIPModel(config),
        CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=crop),
        tokenizer,
    )


def siglip():
    from transformers import SiglipConfig, SiglipImageProcessor, SiglipModel

    tokenizer = word_tokenizer(TEXTS, end=True)
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    vision = {"image_size": SIZE, "patch_size": 8}
    config = SiglipConfig(text_config={**SHAPE, **text}, vision_config={**SHAPE, **vision})
    return (
        SiglipModel(config),
        SiglipImageProcessor(size={"height": SIZE, "width": SIZE}),
        tokenizer,
    )


def dino():
    from transformers import BitImageProcessor, Dinov2Config, Dinov2Model

    config = Dinov2Config(**SHAPE, image_size=SIZE, patch_size=8)
    crop = {"height": SIZE, "width": SIZE}
    return Dinov2Model(config), BitImageProcessor(size={"shortest_edge": 36}, crop_size=crop), None


FAMILIES = {"clip": clip, "siglip": siglip, "dino": dino}


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp(request.param)
    for part in FAMILIES[request.param]():
        if part is not None:
            part.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def trunk(folder):
    return load_trunk(folder)


def scene(h=97, w=131, seed=0):
    """Sharp edges and fine texture, which antialiasing changes most."""
    rng = np.random.default_rng(seed)
    board = (np.indices((h, w)).sum(0) % 3 == 0)[..., None] * np.array([255, 200, 90])
    noise = rng.integers(0, 60, (h, w, 3))
    return np.clip(board + noise, 0, 255).astype(np.uint8)


def pillow(pipeline, frame):
    """Resize and crop one frame as the models' authors did."""
    image = Image.fromarray(frame)
    w, h = image.size
    if pipeline.shortest is not None:
        longer = int(pipeline.shortest * max(w, h) / min(w, h))
        size = (pipeline.shortest, longer) if h > w else (longer, pipeline.shortest)
    else:
        size = pipeline.size[::-1]
    out = np.asarray(image.resize(size, pipeline.resample))
    if pipeline.crop is None:
        return out
    top, left = (out.shape[0] - pipeline.crop[0]) // 2, (out.shape[1] - pipeline.crop[1]) // 2
    return out[top : top + pipeline.crop[0], left : left + pipeline.crop[1]]


@pytest.mark.parametrize("shape", [(97, 131), (131, 97), (32, 32), (20, 24)])
def test_pixels_are_those_of_pillow_within_one_level(trunk, shape):
    frame = scene(*shape)
    ours = trunk.pixels.resized(torch.from_numpy(frame).movedim(-1, 0)[None])[0].movedim(0, -1)
    difference = np.abs(ours.numpy().astype(int) - pillow(trunk.pixels, frame))
    assert difference.max() <= 1


def test_without_antialias_the_pixels_are_wrong(trunk):
    frame = scene()
    blunt = PixelPipeline(**{**vars(trunk.pixels), "antialias": False})
    ours = blunt.resized(torch.from_numpy(frame).movedim(-1, 0)[None])[0].movedim(0, -1)
    assert np.abs(ours.numpy().astype(int) - pillow(trunk.pixels, frame)).max() > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_those_of_the_models_own_processor(family):
    model, processor, tokenizer = FAMILIES[family]()
    frame = scene(97, 131)
    theirs = processor(images=Image.fromarray(frame), return_tensors="pt")["pixel_values"]
    ours = TransformersTrunk(model, processor, tokenizer).preprocess(torch.from_numpy(frame)[None])
    assert ours.shape == theirs.shape
    level = 1 / 255 / min(processor.image_std)
    assert (ours - theirs).abs().max() <= 1.01 * level


def test_floats_and_bytes_agree(trunk):
    frame = torch.from_numpy(scene())[None]
    floats = trunk.preprocess(frame.movedim(-1, 1).float() / 255)
    level = 1 / 255 / min(trunk.pixels.std)
    assert (trunk.preprocess(frame) - floats).abs().max() <= 1.01 * level


def test_image_features_are_the_models_own(folder, trunk):
    from transformers import AutoModel

    frames = torch.from_numpy(np.stack([scene(seed=s) for s in range(3)]))
    inputs = trunk.preprocess(frames)
    model = AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ours = trunk.forward(inputs)
        if hasattr(model, "get_image_features"):
            theirs = model.get_image_features(pixel_values=inputs).pooler_output
        else:
            theirs = model(pixel_values=inputs).pooler_output
    torch.testing.assert_close(ours, theirs)


def test_a_text_does_not_see_the_others(trunk):
    if not trunk.reads_texts:
        with pytest.raises(NotImplementedError, match="no text tower"):
            trunk.encode_texts(["a"])
        return
    together = trunk.encode_texts(TEXTS)
    alone = torch.cat([trunk.encode_texts([text]) for text in TEXTS])
    assert torch.equal(together, alone)
    assert not torch.allclose(together[0], together[1])
    # Longer than the context: cut off, not an error in the middle of a batch.
    assert trunk.encode_texts(["cube " * 100]).isfinite().all()


def test_siglip_reads_texts_at_the_length_it_was_trained_at():
    model, processor, tokenizer = siglip()
    trunk = TransformersTrunk(model, processor, tokenizer)
    tokens = tokenizer([TEXTS[0]], padding="max_length", max_length=16, return_tensors="pt")
    with torch.no_grad():
        theirs = model.get_text_features(input_ids=tokens["input_ids"]).pooler_output
    torch.testing.assert_close(trunk.encode_texts([TEXTS[0]]), theirs)


def test_loading_twice_gives_the_same_lane_and_other_weights_another(folder):
    a, b = load_trunk(folder), load_trunk(folder)
    if a.reads_texts:
        a.encode_texts(["cube"])  # tokenizers remember the padding of the last call
    assert a.lane == b.lane
    changed = b.model
    with torch.no_grad():
        next(changed.parameters()).add_(1e-3)
    from transformers import AutoImageProcessor

    assert TransformersTrunk(changed, AutoImageProcessor.from_pretrained(folder)).lane != a.lane


def test_patch_tokens_are_an_option(folder):
    trunk = load_trunk(folder, level="patches")
    frames = torch.from_numpy(scene()[None])
    features = trunk.forward(trunk.preprocess(frames))
    assert features.ndim == 3
    assert features.shape[1] >= (SIZE // 8) ** 2
    assert not trunk.reads_texts


def test_clip_score_and_pick_score_are_the_published_formulas():
    torch.manual_seed(1)
    trunk = TransformersTrunk(*clip())
    frames = np.stack([scene(seed=s) for s in range(4)])
    with torch.no_grad():
        image = trunk.forward(trunk.preprocess(torch.from_numpy(frames)))
    text = trunk.encode_texts([TEXTS[0]])
    cosine = torch.nn.functional.cosine_similarity(image, text).numpy()
    with ScoringCore() as core:
        core.register(cosine_scorer("pick", trunk))
        core.register(cosine_scorer("clip", trunk, scale=2.5, floor=0.0))
        reply = core.score(ScoreRequest(scorers=("pick", "clip"), frames=frames, texts=TEXTS[0]))
    scale = float(trunk.model.logit_scale.detach().exp())
    np.testing.assert_allclose(reply["pick"].require_ok(), scale * cosine, rtol=1e-4)
    np.testing.assert_allclose(
        reply["clip"].require_ok(), 2.5 * np.maximum(cosine, 0), rtol=1e-4, atol=1e-6
    )
    assert reply["pick"].score.std() > 0
    assert core.card("pick").score_range == pytest.approx((-scale, scale))


def test_a_clip_has_the_mean_of_its_frames_and_items_without_text_are_bad_input():
    trunk = TransformersTrunk(*clip())
    frames = np.stack([scene(seed=s) for s in range(3)])
    with ScoringCore() as core:
        core.register(cosine_scorer("pick", trunk))
        request = ScoreRequest(
            scorers="pick", frames=frames, offsets=[0, 3, 3], texts=TEXTS[0], text=[0, 0]
        )
        batch = core.score(request)["pick"]
        bare = core.score(ScoreRequest(scorers="pick", frames=frames))["pick"]
    assert batch.score[0] == pytest.approx(batch.per_frame.mean(), rel=1e-6)
    assert batch.status.tolist() == [Status.OK, Status.BAD_INPUT]
    assert set(bare.status.tolist()) == {Status.BAD_INPUT}
    assert np.isnan(bare.score).all()
    assert "no text" in bare.detail[0]


def test_a_model_without_texts_is_compared_with_a_reference():
    torch.manual_seed(2)
    trunk = TransformersTrunk(*dino())
    goal, other = scene(seed=0), np.full((97, 131, 3), 9, np.uint8)
    role = [Role.GOAL, Role.CURRENT] * 2 + [Role.CURRENT]
    request = ScoreRequest(
        scorers="dino",
        frames=np.stack([goal, goal, goal, other, other]),
        offsets=[0, 2, 4, 5],
        role=np.array(role, np.uint8),
    )
    with ScoringCore() as core:
        core.register(cosine_scorer("dino", trunk))
        batch = core.score(request)["dino"]
    assert batch.score[0] == pytest.approx(1.0, abs=1e-5)
    assert batch.score[1] < 0.999
    assert batch.status.tolist() == [Status.OK, Status.OK, Status.BAD_INPUT]


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.slow
def test_preprocessing_trunk_and_head_are_differentiable(family):
    torch.manual_seed(0)
    model, processor, tokenizer = FAMILIES[family]()
    trunk = TransformersTrunk(model.double(), processor, tokenizer)
    scorer = Scorer(cosine_scorer("x", trunk).card, trunk, CosineHead())
    pixels = torch.rand(1, 3, 9, 11, dtype=torch.float64) * 0.6 + 0.2
    pixels.requires_grad_(True)
    assert torch.autograd.gradcheck(
        lambda x: score_images(scorer, x, [TEXTS[0]]), (pixels,), eps=1e-6, atol=1e-6
    )
    (gradient,) = torch.autograd.grad(score_images(scorer, pixels, [TEXTS[0]]).sum(), pixels)
    assert gradient.abs().max() > 0


def test_what_is_no_image_model_is_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="no image model"):
        load_trunk(tmp_path / "nothing")
    from transformers import CLIPImageProcessor

    with pytest.raises(ConfigError, match="filter"):
        PixelPipeline.of(CLIPImageProcessor(resample=1))
