"""LeRobot's reward models, tiny and randomly initialised; no download."""

from pathlib import Path

import torch
from lerobot.configs import FeatureType, PolicyFeature
from lerobot.rewards.classifier.configuration_classifier import RewardClassifierConfig
from lerobot.rewards.classifier.modeling_classifier import Classifier
from lerobot.rewards.robometer.configuration_robometer import (
    ROBOMETER_SPECIAL_TOKENS,
    RobometerConfig,
)
from lerobot.rewards.robometer.modeling_robometer import RobometerRewardModel
from lerobot.rewards.robometer.processor_robometer import PROGRESS_PROMPT
from lerobot.rewards.sarm.configuration_sarm import SARMConfig
from lerobot.rewards.sarm.modeling_sarm import SARMRewardModel
from lerobot.rewards.topreward.configuration_topreward import (
    DEFAULT_PROMPT_PREFIX,
    DEFAULT_PROMPT_SUFFIX_TEMPLATE,
    TOPRewardConfig,
)

from embodied_reward.scoring.language.small import word_tokenizer

KEY = "observation.images.corner2"
VIEWS = ("corner2", "gripperPOV")
CLIP = "openai/clip-vit-base-patch32"
TASK = "slide the window open"


def picture_feature(size):
    return PolicyFeature(type=FeatureType.VISUAL, shape=(3, size, size))


def resnet(folder):
    """A ResNet of a few thousand weights whose last map of a 128 px picture is 4 x 4."""
    from transformers import ResNetConfig, ResNetModel

    torch.manual_seed(0)
    shape = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 16], "depths": [1, 1, 1, 1]}
    ResNetModel(ResNetConfig(**shape, layer_type="basic")).save_pretrained(folder)
    return folder


def classifier_config(backbone):
    return RewardClassifierConfig(
        model_name=str(backbone),
        device="cpu",
        num_cameras=2,
        hidden_dim=16,
        latent_dim=16,
        image_embedding_pooling_dim=2,
        input_features={f"observation.images.{v}": picture_feature(128) for v in VIEWS},
    )


def classifier(folder):
    config = classifier_config(resnet(folder / "backbone"))
    torch.manual_seed(1)
    Classifier(config).save_pretrained(folder / "model")
    return folder / "model"


def clip(folder):
    """Lies where `from_pretrained("openai/clip-vit-base-patch32")` looks first: the work folder."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = word_tokenizer([TASK], end=True)
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    tower |= {"num_hidden_layers": 1, "projection_dim": 16, "initializer_range": 0.3}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": 32, "patch_size": 8},
        projection_dim=16,
    )
    size = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    CLIPModel(config).save_pretrained(folder / CLIP)
    CLIPProcessor(CLIPImageProcessor(**size), tokenizer).save_pretrained(folder / CLIP)


def sarm(folder):
    config = SARMConfig(
        device="cpu",
        image_key=KEY,
        image_dim=16,
        text_dim=16,
        hidden_dim=16,
        num_heads=2,
        num_layers=1,
        max_state_dim=8,
        n_obs_steps=4,
        max_rewind_steps=2,
        frame_gap=3,
    )
    torch.manual_seed(2)
    SARMRewardModel(config).save_pretrained(folder / "model")
    return folder / "model"


CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }} {% for c in m.content %}"
    "{% if c.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif c.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>{% endfor %}"
)
SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")


def qwen(folder, dtype=torch.float32):
    """A Qwen3-VL of some ten thousand weights with its processor."""
    from transformers import (
        AutoConfig,
        Qwen2VLImageProcessor,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    texts = [TASK, DEFAULT_PROMPT_PREFIX, DEFAULT_PROMPT_SUFFIX_TEMPLATE, PROGRESS_PROMPT, "user"]
    texts += ["0123456789 . seconds < > Picture :", *"0123456789"]
    tokenizer = word_tokenizer(texts)
    extra = [*SPECIAL, "<|im_start|>", "<|im_end|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in extra}
    text = {
        "vocab_size": len(tokenizer) + len(ROBOMETER_SPECIAL_TOKENS),
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "initializer_range": 0.2,
        "rope_scaling": {"rope_type": "default", "mrope_section": [2, 3, 3]},
    }
    vision = {
        "depth": 2,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": 32,
        "patch_size": 8,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
        "initializer_range": 0.2,
    }
    config = AutoConfig.for_model(
        "qwen3_vl",
        text_config=text,
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    torch.manual_seed(3)
    Qwen3VLForConditionalGeneration(config).to(dtype).save_pretrained(folder)
    patches = {"patch_size": 8, "merge_size": 2, "temporal_patch_size": 2}
    bounds = {"size": {"shortest_edge": 256, "longest_edge": 4096}}
    Qwen3VLProcessor(
        Qwen2VLImageProcessor(**patches, **bounds),
        tokenizer,
        Qwen3VLVideoProcessor(**patches, size={"shortest_edge": 256, "longest_edge": 65536}),
        chat_template=CHAT,
    ).save_pretrained(folder)
    return folder


def topreward(folder):
    config = TOPRewardConfig(
        vlm_name=str(qwen(folder / "qwen")),
        image_key=KEY,
        device="cpu",
        max_frames=4,
        torch_dtype="float32",
    )
    target = folder / "model"
    target.mkdir()
    config._save_pretrained(target)
    return target


def robometer(folder):
    config = RobometerConfig(
        pretrained_path=None,
        base_model_id=str(qwen(folder / "qwen")),
        image_key=KEY,
        device="cpu",
        max_frames=4,
        torch_dtype="float32",
    )
    torch.manual_seed(4)
    RobometerRewardModel(config).save_pretrained(folder / "model")
    return folder / "model"


MAKERS = {
    "reward_classifier": classifier,
    "sarm": sarm,
    "topreward": topreward,
    "robometer": robometer,
}


def make(kind: str, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return MAKERS[kind](folder)
