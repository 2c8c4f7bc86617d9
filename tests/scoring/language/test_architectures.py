"""Other architectures than LLaVA's: how they lay pictures out is not ours to know."""

import numpy as np
import pytest
import torch

from embodied_reward.scoring.language.reader import Reader, Turn, load_reader
from embodied_reward.scoring.language.small import word_tokenizer

WORDS = ["a red disk on the left", "describe this image in detail . user assistant :"]
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def template(image):
    content = "{% if c['type'] == 'image' %}" + image + "{% else %}{{ c['text'] }}{% endif %}"
    turns = "{% for m in messages %}user : {% for c in m['content'] %}" + content
    return turns + "{% endfor %}{% endfor %}{% if add_generation_prompt %} assistant : {% endif %}"


def tokens(names):
    tokenizer = word_tokenizer(WORDS)
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    return tokenizer, {name: tokenizer.convert_tokens_to_ids(name) for name in names}


def qwen2_vl():
    import transformers as t

    names = ("image_pad", "video_pad", "vision_start", "vision_end")
    tokenizer, ids = tokens([f"<|{name}|>" for name in names])
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = {**TEXT, "num_key_value_heads": 2, "vocab_size": len(tokenizer), "rope_parameters": rope}
    patches = {"patch_size": 8, "temporal_patch_size": 2}
    config = t.Qwen2VLConfig(
        text_config=text,
        vision_config={
            **patches, "depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4,
            "mlp_ratio": 2, "spatial_merge_size": 2,
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )  # fmt: skip
    size = {"shortest_edge": 256, "longest_edge": 4096}
    pixels = t.Qwen2VLImageProcessor(**patches, merge_size=2, size=size)
    processor = t.Qwen2VLProcessor(
        pixels,
        tokenizer,
        t.Qwen2VLVideoProcessor(**patches, merge_size=2),
        chat_template=template("<|vision_start|><|image_pad|><|vision_end|>"),
    )
    return Reader(t.Qwen2VLForConditionalGeneration(config), processor)


def idefics3():
    import transformers as t

    places = [f"<row_{i}_col_{j}>" for i in range(1, 5) for j in range(1, 5)]
    marks = ["<fake_token_around_image>", "<global-img>", "<end_of_utterance>"]
    tokenizer, ids = tokens(["<image>", *marks, *places])
    vision = {k: v for k, v in TEXT.items() if not k.endswith("_id")}
    config = t.Idefics3Config(
        image_token_id=ids["<image>"],
        scale_factor=2,
        text_config={**TEXT, "model_type": "llama", "vocab_size": len(tokenizer)},
        vision_config={**vision, "image_size": 32, "patch_size": 8},
        pad_token_id=0,
    )
    pixels = t.Idefics3ImageProcessor(
        size={"longest_edge": 64}, max_image_size={"longest_edge": 32}, resample=3
    )
    processor = t.Idefics3Processor(
        pixels, tokenizer, image_seq_len=4, chat_template=template("<image>")
    )
    return Reader(t.Idefics3ForConditionalGeneration(config), processor)


@pytest.fixture(scope="module", params=[qwen2_vl, idefics3])
def reader(request):
    torch.manual_seed(0)
    return request.param()


def image(seed, h=40, w=48):
    return np.random.default_rng(seed).integers(0, 256, (h, w, 3), dtype=np.uint8)


TURNS = [
    Turn((image(0),), "describe this image", "a red disk"),
    Turn((image(1), image(2)), "describe", "a red disk on the left"),
    Turn((image(3),), "describe this image in detail .", "a"),
    Turn((image(4), image(5)), "describe this image", "left"),
    Turn((image(6, 64, 64), image(7, 24, 56)), "describe", "red"),
]


@torch.no_grad()
def test_a_turn_reads_the_same_alone_and_among_others(reader):
    together = reader.answer_log_probs(TURNS)
    for turn, found in zip(TURNS, together, strict=True):
        (alone,) = reader.answer_log_probs([turn])
        torch.testing.assert_close(found, alone, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_it_is_the_models_own_loss(reader):
    for turn in TURNS:
        inputs = reader.processor(
            images=[list(turn.images)], text=[reader._text(turn)], return_tensors="pt"
        )
        answer = torch.tensor([reader.tokenizer(turn.answer, add_special_tokens=False).input_ids])
        length = inputs["input_ids"].shape[1]
        for key, value in inputs.items():
            if value.shape == (1, length) and key != "input_ids":
                more = torch.full_like(answer, int(key == "attention_mask"))
                inputs[key] = torch.cat([value, more], 1)
        ids = torch.cat([inputs.pop("input_ids"), answer], 1)
        labels = torch.where(torch.arange(ids.shape[1]) < length, -100, ids)
        loss = reader.model(**inputs, input_ids=ids, labels=labels).loss
        mean = reader.answer_log_probs([turn])[0].mean()
        assert float(mean) == pytest.approx(-float(loss), abs=1e-5)


@torch.no_grad()
def test_every_picture_and_their_order_count(reader):
    turn = TURNS[1]
    swapped = Turn(turn.images[::-1], turn.prompt, turn.answer)
    other = Turn((turn.images[0], image(9)), turn.prompt, turn.answer)
    first, *rest = reader.answer_log_probs([turn, swapped, other])
    assert all((first - found).abs().max() > 1e-5 for found in rest)


def test_saved_and_loaded_it_has_the_same_digest(reader, tmp_path):
    reader.save(tmp_path)
    assert load_reader(tmp_path).digest == reader.digest
