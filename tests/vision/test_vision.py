import pytest
import torch
from transformers import AutoImageProcessor, Dinov2Config, Dinov2Model, ViTConfig, ViTModel

from embodied_reward.errors import ConfigError
from embodied_reward.vision.augment import colour_jitter, random_shift
from embodied_reward.vision.encoders import EncoderConfig, build_encoder, rebuild
from embodied_reward.vision.preprocess import resize_frames, to_input


@pytest.fixture(scope="module", params=["dinov2", "vit"])
def tiny_model(request, tmp_path_factory):
    """A randomly initialised model saved as a user would have it on disk."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if request.param == "dinov2":
        Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(folder)
        name = "BitImageProcessor"
    else:
        config = ViTConfig(**sizes, intermediate_size=16, image_size=32, patch_size=16)
        ViTModel(config).save_pretrained(folder)
        name = "ViTImageProcessor"
    (folder / "preprocessor_config.json").write_text(
        f'{{"image_processor_type": "{name}", "image_mean": [0.5, 0.4, 0.3], '
        '"image_std": [0.2, 0.2, 0.2], "do_resize": true}'
    )
    return folder


def test_a_saved_transformers_model_is_an_encoder(tiny_model):
    encoder = build_encoder(EncoderConfig(name=str(tiny_model)), dim=99)
    processor = AutoImageProcessor.from_pretrained(tiny_model)
    assert encoder.statistics["mean"] == list(processor.image_mean)
    images = torch.rand(3, 3, encoder.image_size, encoder.image_size)
    assert encoder(images).shape == (3, 16)
    assert not encoder.trainable
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.train().model.training


def test_a_rebuilt_encoder_needs_no_files_and_gives_the_same_features(tiny_model):
    encoder = build_encoder(EncoderConfig(name=str(tiny_model)), dim=0).eval()
    again = rebuild(encoder.description()).eval()
    again.load_state_dict(encoder.state_dict())
    images = torch.rand(2, 3, encoder.image_size, encoder.image_size)
    torch.testing.assert_close(again(images), encoder(images), rtol=0, atol=0)


def test_an_unfrozen_model_receives_gradients(tiny_model):
    encoder = build_encoder(EncoderConfig(name=str(tiny_model), freeze=False), dim=0)
    encoder(torch.rand(2, 3, encoder.image_size, encoder.image_size)).square().sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters())


@pytest.mark.parametrize(("name", "size"), [("conv64", 64), ("conv112", 112)])
def test_conv_presets(name, size):
    encoder = build_encoder(EncoderConfig(name=name), dim=24)
    assert encoder.image_size == size
    assert encoder(torch.rand(2, 3, size, size)).shape == (2, 24)
    assert rebuild(encoder.description())(torch.rand(1, 3, size, size)).shape == (1, 24)


def test_an_unloadable_encoder_names_the_presets(tmp_path):
    with pytest.raises(ConfigError, match="neither a preset .conv64, conv112."):
        build_encoder(EncoderConfig(name=str(tmp_path / "nothing")), dim=8)


def test_resize_keeps_bytes_and_channel_order():
    frames = torch.zeros(1, 100, 80, 3, dtype=torch.uint8)
    frames[..., 0], frames[:, :50, :, 2] = 200, 255
    small = resize_frames(frames, 32)
    assert small.dtype == torch.uint8
    assert small.shape == (1, 32, 32, 3)
    assert small[0, 5, 5].tolist() == [200, 0, 255]
    assert small[0, 30, 5].tolist() == [200, 0, 0]
    image = to_input(frames, 32)
    assert image.shape == (1, 3, 32, 32)
    torch.testing.assert_close(image[0, :, 5, 5], torch.tensor([200.0, 0, 255]) / 255)


def test_shift_moves_pixels_and_repeats_edges():
    image = torch.arange(64.0).reshape(1, 1, 8, 8).expand(200, 3, 8, 8)
    moved = random_shift(image, 2, torch.Generator().manual_seed(0))
    assert moved.shape == image.shape
    inside = moved[:, 0, 3, 3]
    rows, columns = inside.div(8, rounding_mode="floor") - 3, inside.remainder(8) - 3
    assert set(rows.tolist()) == set(columns.tolist()) == {-2.0, -1.0, 0.0, 1.0, 2.0}
    assert (moved.amin(), moved.amax()) == (0, 63)


def test_jitter_is_seeded_and_in_range():
    images = torch.rand(16, 3, 8, 8)
    one = colour_jitter(images, 0.3, torch.Generator().manual_seed(1))
    two = colour_jitter(images, 0.3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    assert one.min() >= 0
    assert one.max() <= 1
    assert (one - images).abs().mean() > 0.01
