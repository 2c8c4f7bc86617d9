"""Trunks made of `transformers` models: CLIP and SigLIP with both towers, DINO-class without text.

trunk = load_trunk("openai/clip-vit-large-patch14", revision=COMMIT)
scorer = cosine_scorer("clip", trunk)
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError
from embodied_reward.scoring.pixels import PixelPipeline
from embodied_reward.scoring.scorer import Trunk, digest_of
from embodied_reward.scoring.trunks import autocast, cast_once, preprocess_name

Level = Literal["pooled", "patches"]


class TransformersTrunk(Trunk):
    """The image tower of a `transformers` model, and its text tower where there is one.

    Args:
        model: e.g. CLIPModel, SiglipModel, Dinov2Model; moved nowhere, set to eval mode.
        processor: its image processor, whose constants fix the pixels.
        tokenizer: its tokenizer; None leaves texts out.
        level: `pooled` gives one vector an image, in the space of the texts where there are any;
            `patches` gives all tokens of the last layer.
        dtype: dtype to compute in; default bfloat16 on CUDA and float32 elsewhere.

    Attributes:
        network: what `forward` runs: the model, or in 16 bits a copy, see `cast_once`.

    The digest is taken once, when the trunk is made: train the model further and make another.
    """

    def __init__(
        self,
        model: nn.Module,
        processor: Any,
        tokenizer: Any = None,
        *,
        level: Level = "pooled",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.model = model.requires_grad_(False).eval()
        self.pixels, self.level = PixelPipeline.of(processor), level
        self.device = next(model.parameters()).device
        self.dtype = dtype or (torch.bfloat16 if self.device.type == "cuda" else torch.float32)
        self.network = cast_once(self.model, self.dtype)
        self.tokenizer = tokenizer if hasattr(model, "get_text_features") else None
        self.reads_texts = self.tokenizer is not None and level == "pooled"
        self.digest = digest_of(model, architecture(model), level, vocabulary(self.tokenizer))
        self.preprocess_id = preprocess_name(self.pixels)

    @property
    def logit_scale(self) -> float:
        """Factor that the model was trained with on cosines; 1 without text tower."""
        raw = getattr(self.model, "logit_scale", None)
        return 1.0 if raw is None else float(raw.detach().exp())

    @property
    def logit_bias(self) -> float:
        """Constant that SigLIP adds to its logits; 0 for others."""
        raw = getattr(self.model, "logit_bias", None)
        return 0.0 if raw is None else float(raw.detach())

    def preprocess(self, frames: Tensor) -> Tensor:
        """See the base class."""
        return self.pixels(frames)

    def forward(self, inputs: Tensor) -> Tensor:
        """See the base class."""
        with autocast(self.device, self.dtype):
            if self.level == "patches":
                tower = getattr(self.network, "vision_model", self.network)
                found = tower(pixel_values=inputs).last_hidden_state
            elif hasattr(self.network, "get_image_features"):
                found = _pooled(self.network.get_image_features(pixel_values=inputs))  # type: ignore[operator]
            else:
                found = _pooled(self.network(pixel_values=inputs))
        return found if found.dtype == torch.float64 else found.float()

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """Encode texts one by one, so that none is padded to another's length.

        What exceeds the model's context is cut off, as its authors do.
        """
        if not self.reads_texts:
            return super().encode_texts(texts)
        with torch.no_grad():
            return torch.cat([self._encode_text(text) for text in texts])

    def _encode_text(self, text: str) -> Tensor:
        config: Any = self.model.config.text_config  # type: ignore[union-attr]
        length = config.max_position_embeddings
        # SigLIP's text tower sees padding (it has no mask) and was trained at full length.
        padding = "max_length" if "siglip" in str(config.model_type) else False
        tokens = self.tokenizer(  # type: ignore[misc]
            [text], padding=padding, max_length=length, truncation=True, return_tensors="pt"
        )
        wanted = ("input_ids", "attention_mask") if not padding else ("input_ids",)
        inputs = {k: tokens[k].to(self.device) for k in wanted if k in tokens}
        with autocast(self.device, self.dtype):
            return _pooled(self.network.get_text_features(**inputs)).float()  # type: ignore[operator]


def load_trunk(
    name: Path | str,
    *,
    revision: str | None = None,
    level: Level = "pooled",
    device: str = "cpu",
    dtype: torch.dtype | None = None,
) -> TransformersTrunk:
    """Load an image model with its processor, and its tokenizer if it reads texts.

    Args:
        name: folder of `save_pretrained`, or hub id.
        revision: commit of the hub model; pin it for reproducible scores.
        level: see `TransformersTrunk`.
        device: torch device.
        dtype: see `TransformersTrunk`.

    Raises:
        ConfigError: no such model, or not one of images.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    with_texts = None
    try:
        model = AutoModel.from_pretrained(name, revision=revision, dtype=torch.float32)
        processor = AutoImageProcessor.from_pretrained(name, revision=revision)
        if hasattr(model, "get_text_features"):
            with_texts = AutoTokenizer.from_pretrained(name, revision=revision)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(
            f"'{name}' is no image model that transformers can load ({reason}); give a folder "
            "saved with save_pretrained() (model and processor) or a hub id that this machine "
            "can reach"
        ) from error
    model = model.to(torch.device(device))
    return TransformersTrunk(model, processor, with_texts, level=level, dtype=dtype)


def _pooled(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    pooled = getattr(output, "pooler_output", None)
    return output.last_hidden_state.mean(1) if pooled is None else pooled.flatten(1)


# What a config remembers of how a model was loaded, and not of what it computes.
_CIRCUMSTANCES = {"_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"}


def architecture(model: Any) -> str:
    """Return a `transformers` model's config as JSON that is the same wherever it came from."""

    def stripped(tree: Any) -> Any:
        if isinstance(tree, dict):
            return {k: stripped(v) for k, v in tree.items() if k not in _CIRCUMSTANCES}
        return tree

    return json.dumps(stripped(json.loads(model.config.to_json_string(use_diff=False))))


def vocabulary(tokenizer: Any) -> str:
    """Return what a tokenizer knows as JSON; empty without one."""
    if tokenizer is None:
        return ""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    rules = {} if backend is None else json.loads(backend.to_str())
    rules = {k: v for k, v in rules.items() if k not in ("padding", "truncation")}  # of each call
    return json.dumps([sorted(tokenizer.get_vocab().items()), rules])
