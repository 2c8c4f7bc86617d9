"""Trunks made of our image encoders."""

import copy
import hashlib
import json

import torch
from torch import Tensor, nn

from embodied_reward.scoring.scorer import Trunk, digest_of
from embodied_reward.vision.encoders import Encoder
from embodied_reward.vision.preprocess import to_input


def preprocess_name(*facts: object) -> str:
    """Return a short hex name of a preprocessing: operations, sizes, constants, versions."""
    text = json.dumps([*map(str, facts), torch.__version__.split("+")[0]])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


HALF = (torch.bfloat16, torch.float16)


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which a trunk computes in `dtype`; does nothing for 32 and 64 bits."""
    mixed = dtype in HALF
    # Without cache: a graph must not refer to a cast weight that is freed when the context ends.
    return torch.autocast(
        device.type, dtype if mixed else torch.bfloat16, enabled=mixed, cache_enabled=False
    )


def cast_once(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a module whose products autocast computes without casting weights in every call.

    The same numbers as `module` under autocast to `dtype`, from a copy in which the weights of
    products are held in it; float32 and float64 return the module itself.
    """
    if dtype not in HALF:
        return module
    lean = copy.deepcopy(module).requires_grad_(False)
    for part in lean.modules():
        if isinstance(part, (nn.Linear, nn.modules.conv._ConvNd)):
            part.to(dtype)
    return lean


class _Weights:
    """Watches the weights of a module; `state` changes with every write to one, or exchange."""

    def __init__(self, module: nn.Module) -> None:
        # The modules' own dictionaries, in which a weight may be exchanged: ten times faster than
        # `parameters()`, and asked for with every batch.
        held = [(m._parameters, m._buffers) for m in module.modules()]
        self._held = [part for pair in held for part in pair if part]

    @property
    def state(self) -> list[tuple[int, int]]:
        return [
            (t.data_ptr(), -1 if t.is_inference() else t._version)
            for part in self._held
            for t in part.values()
            if t is not None
        ]


class EncoderTrunk(Trunk):
    """An image encoder of `vision.encoders`, in eval mode: uint8 pictures to Tensor["n d"].

    The digest is taken once, when the trunk is made. Train the encoder further, and the trunk is
    `stale`: make another.

    Args:
        encoder: moved nowhere; set to eval mode.
        dtype: dtype to compute in; default bfloat16 on CUDA and float32 elsewhere (on CPUs
            bfloat16 products can be a hundred times slower).

    Attributes:
        network: what `forward` runs: the encoder, or in 16 bits a copy, see `cast_once`.
    """

    def __init__(self, encoder: Encoder, dtype: torch.dtype | None = None) -> None:
        self.encoder = encoder.eval()
        self.device = next(encoder.parameters()).device
        on_gpu = self.device.type == "cuda"
        self.dtype = dtype or (torch.bfloat16 if on_gpu else torch.float32)
        self.network = cast_once(self.encoder, self.dtype)
        self.digest = digest_of(encoder, json.dumps(encoder.description(), sort_keys=True))
        self.preprocess_id = preprocess_name("square-antialias", encoder.image_size, "unit")
        self._weights = _Weights(encoder)
        self._state: list | None = self._weights.state

    @property
    def stale(self) -> bool:
        """See the base class; writes through `Tensor.data` go unnoticed, so `retire` then."""
        return self._state != self._weights.state

    def retire(self) -> None:
        """Declare the trunk stale, because the weights are going to change."""
        self._state = None

    def preprocess(self, frames: Tensor) -> Tensor:
        """See the base class."""
        return to_input(frames, self.encoder.image_size)

    def forward(self, inputs: Tensor) -> Tensor:
        """See the base class."""
        with autocast(self.device, self.dtype):
            features = self.network(inputs)
        return features if features.dtype == torch.float64 else features.float()
