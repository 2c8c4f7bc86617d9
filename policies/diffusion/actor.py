"""A diffusion policy that acts: LeRobot's network and processors, our memory and seeds."""

import json
import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from embodied_reward import config as configs
from embodied_reward.errors import CheckpointError
from embodied_reward.types import Float32

from ..config import DiffusionConfig
from .windows import IMAGES, STATE_KEYS, as_input

CARD = "embodied_reward.json"
FORMAT = 1
PIXELS = "pixels"


@dataclass(frozen=True)
class DiffusionSpec:
    """What LeRobot's files do not say of a policy.

    Attributes:
        config: how it was trained.
        observation: key of the environment -> shape; a picture's is (height, width, 3) and its
            key "pixels.<camera>".
        low: lowest action, Float32["a"] in the environment's units.
        high: highest action.
        meta: environment and dataset it was trained with, for messages and defaults.
    """

    config: DiffusionConfig
    observation: Mapping[str, tuple[int, ...]]
    low: Float32
    high: Float32
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def views(self) -> tuple[str, ...]:
        """Cameras that the policy sees."""
        names = (key for key in self.observation if key.startswith(PIXELS + "."))
        return tuple(name.removeprefix(PIXELS + ".") for name in names)

    def rendered(
        self, views: Sequence[str], size: int | tuple[int, int]
    ) -> tuple[tuple[str, ...], int | tuple[int, int]]:
        """Return which views of which size an environment renders for this policy and others.

        Args:
            views: that others look through.
            size: of their pictures; a policy that sees pictures decides for all.
        """
        if not self.views:
            return tuple(views), size
        height, width, _ = self.observation[f"{PIXELS}.{self.views[0]}"]
        return tuple(dict.fromkeys((*self.views, *views))), (height, width)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {
            "format": FORMAT,
            "policy": configs.encode(self.config),
            "observation": {k: list(v) for k, v in self.observation.items()},
            "action": {"low": self.low.tolist(), "high": self.high.tolist()},
            "meta": dict(self.meta),
        }

    @staticmethod
    def from_dict(tree: Mapping[str, Any]) -> "DiffusionSpec":
        """Read `to_dict` back. Raises KeyError, ConfigError or TypeError."""
        fields = {k: v for k, v in tree["policy"].items() if k != "type"}
        return DiffusionSpec(
            config=configs.decode(DiffusionConfig, fields),
            observation={k: tuple(v) for k, v in tree["observation"].items()},
            low=np.array(tree["action"]["low"], np.float32),
            high=np.array(tree["action"]["high"], np.float32),
            meta=tree.get("meta", {}),
        )


class History:
    """The newest observations of one episode; before there are enough, the first is repeated."""

    def __init__(self, spec: DiffusionSpec) -> None:
        self._keys = tuple(spec.observation)
        self._meta = spec.meta
        self._rows: deque[dict[str, np.ndarray]] = deque(maxlen=spec.config.n_obs_steps)

    def clear(self) -> None:
        """Forget everything: an episode begins."""
        self._rows.clear()

    def add(self, obs: Mapping[str, Any]) -> None:
        """Remember the environment's observation. Raises CheckpointError if a key is missing."""
        row = {key: np.asarray(_lookup(obs, key, self._meta)) for key in self._keys}
        missing = (self._rows.maxlen or 1) - len(self._rows)
        self._rows.extend([row] * (missing if not self._rows else 1))

    def stacked(self) -> dict[str, Tensor]:
        """Return LeRobot's observations [1 o ...]; pictures in [0, 1], channels first."""
        stacks = {key: np.stack([row[key] for row in self._rows]) for key in self._keys}
        return {lerobot_key(key): _tensor(key, stack)[None] for key, stack in stacks.items()}


class DiffusionActor:
    """A diffusion policy as `evaluate` and the fine-tuning environments call it.

    Every plan starts from noise of the actor's own generator, so that the same seed gives the
    same episode whatever else draws random numbers.

    Args:
        model: LeRobot's `DiffusionPolicy`.
        before: LeRobot's pipeline that normalises observations.
        after: LeRobot's pipeline that brings actions back to their units.
        spec: see `DiffusionSpec`.
    """

    def __init__(self, model: Any, before: Any, after: Any, spec: DiffusionSpec) -> None:
        self.model, self.before, self.after, self.spec = model, before, after, spec
        self._history, self._plan = History(spec), deque()
        self._generator = torch.Generator()
        self.reset(0)

    @property
    def noise_shape(self) -> tuple[int, int]:
        """(horizon, action size) of the noise that a plan is denoised from."""
        return self.spec.config.horizon, len(self.spec.low)

    @property
    def width(self) -> int:
        """Length of `flat`."""
        numbers = {k: s for k, s in self.spec.observation.items() if not k.startswith(PIXELS)}
        size = sum(math.prod(shape) for shape in numbers.values())
        if self.spec.views:
            encoder = self.model.diffusion.rgb_encoder  # one per camera, or one for all
            one: Any = encoder[0] if isinstance(encoder, nn.ModuleList) else encoder
            size += len(self.spec.views) * one.feature_dim
        return self.spec.config.n_obs_steps * size

    def flat(self, obs: Mapping[str, Tensor]) -> Float32:
        """Return one stack of observations as the vector Float32["o"] that agents see.

        Numbers are normalised; of pictures it holds what the policy's own vision network finds.
        """
        return self.encoded(self.before(dict(obs)))[0].cpu().numpy().astype(np.float32)

    @torch.no_grad()
    def encoded(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return `flat` [b o] of LeRobot's normalised observations [b n_obs_steps ...]."""
        if self.spec.views:
            seen = with_images(batch, self.model.config)
            return self.model.diffusion._prepare_global_conditioning(seen)
        return torch.cat([batch[lerobot_key(key)].flatten(1) for key in self.spec.observation], 1)

    def condition(self, flat: Tensor) -> Tensor:
        """Return LeRobot's conditioning [b c] of observations [b o] as `flat` returns them."""
        if self.spec.views:
            return flat
        parts = self._unflat(flat)
        return torch.cat([parts[key] for key in STATE_KEYS.values() if key in parts], -1).flatten(1)

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        self._history.clear()
        self._plan.clear()
        self._generator.manual_seed(seed)

    def predict(self, obs: Mapping[str, Any], deterministic: bool = True) -> Float32:
        """Return the next action Float32["a"] in the environment's units.

        Args:
            obs: the environment's dict.
            deterministic: changes nothing: a diffusion policy has no mean action. Its noise is
                decided by `reset(seed)`.

        Raises:
            CheckpointError: a key that the policy was trained with is missing.
        """
        self._history.add(obs)
        if not self._plan:
            noise = torch.randn((1, *self.noise_shape), generator=self._generator)
            self._plan.extend(self.plan(self._history.stacked(), noise)[0])
        return self._plan.popleft()

    @torch.no_grad()
    def plan(self, obs: Mapping[str, Tensor], noise: Tensor) -> Float32:
        """Denoise plans: a deterministic function of observations and noise (DDIM, eta = 0).

        Args:
            obs: LeRobot's observations [b o ...] in the environment's units.
            noise: [b h a], standard normal.

        Returns:
            Float32["b n_action_steps a"], actions from now on, in the environment's units.
        """
        found = self.denoise(obs, noise).cpu().numpy()
        return found.clip(self.spec.low, self.spec.high).astype(np.float32)

    def denoise(self, obs: Mapping[str, Tensor], noise: Tensor) -> Tensor:
        """Return what `plan` does before it is cut to the action range, with its gradient."""
        # LeRobot draws from torch's global generator where nothing is to be drawn (eta = 0).
        batch = with_images(self.before(dict(obs)), self.model.config)
        device = next(self.model.parameters()).device
        return self.after(self.model.diffusion.generate_actions(batch, noise=noise.to(device)))

    def unit_plans(self, flat: Tensor, noise: Tensor) -> Tensor:
        """Do as `plan` in normalised units.

        Args:
            flat: observations [b o] as `flat` returns them.
            noise: [b h a], standard normal.

        Returns:
            Plans [b n_action_steps * a], 1 being half the action range; within [-1, 1].
        """
        config, known = self.spec.config, self.condition(flat)
        found = self.model.diffusion.conditional_sample(len(flat), global_cond=known, noise=noise)
        start = config.n_obs_steps - 1
        return found[:, start : start + config.n_action_steps].clamp(-1, 1).flatten(1)

    def _unflat(self, flat: Tensor) -> dict[str, Tensor]:
        """Return LeRobot's normalised observations, key -> [b n_obs_steps s], of `flat` [b o]."""
        steps = self.spec.config.n_obs_steps
        sizes = {lerobot_key(k): math.prod(v) for k, v in self.spec.observation.items()}
        columns = flat.split([steps * size for size in sizes.values()], dim=1)
        found = zip(sizes.items(), columns, strict=True)
        return {key: part.reshape(len(flat), steps, size) for (key, size), part in found}

    def save(self, folder: Path) -> None:
        """Write LeRobot's files and our card into `folder`.

        `DiffusionPolicy.from_pretrained(folder)` and `PolicyProcessorPipeline.from_pretrained`
        read them without this library.
        """
        self.model.save_pretrained(folder)
        self.before.save_pretrained(folder)
        self.after.save_pretrained(folder)
        (folder / CARD).write_text(json.dumps(self.spec.to_dict(), indent=1))


def create_actor(spec: DiffusionSpec, stats: dict[str, dict[str, Tensor]]) -> DiffusionActor:
    """Build an untrained policy.

    Args:
        spec: see `DiffusionSpec`.
        stats: LeRobot's statistics of observations and actions.
    """
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.diffusion.processor_diffusion import make_diffusion_pre_post_processors

    config = _lerobot_config(spec)
    model = DiffusionPolicy(config).to(spec.config.device)
    model.eval()
    return DiffusionActor(model, *make_diffusion_pre_post_processors(config, stats), spec)


def load_actor(folder: Path, *, device: str = "cpu") -> DiffusionActor:
    """Load what `DiffusionActor.save` wrote. Raises CheckpointError."""
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
    from lerobot.policies.factory import make_pre_post_processors

    try:
        spec = DiffusionSpec.from_dict(json.loads((folder / CARD).read_text()))
        model = DiffusionPolicy.from_pretrained(folder, local_files_only=True, strict=True)
        model.config.device = device
        before, after = make_pre_post_processors(
            model.config,
            pretrained_path=str(folder),
            preprocessor_overrides={"device_processor": {"device": device}},
        )
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        first = str(error).strip().splitlines()[:1] or [""]
        raise CheckpointError(
            f"'{folder}' does not hold a diffusion policy of `er train-policy` "
            f"({type(error).__name__}: {first[0]}); LeRobot's own checkpoints lack {CARD}, which "
            "names the environment's observations and action range"
        ) from error
    return DiffusionActor(model.to(device).eval(), before, after, spec)


def with_images(batch: Mapping[str, Any], config: Any) -> dict[str, Any]:
    """Stack the cameras under the one key that LeRobot's network reads."""
    found = dict(batch)
    if config.image_features:
        views = [found[key] for key in config.image_features]
        found["observation.images"] = torch.stack(views, dim=-4)
    return found


def lerobot_key(key: str) -> str:
    """Return LeRobot's name of an environment's observation."""
    return STATE_KEYS.get(key) or IMAGES + key.removeprefix(PIXELS + ".")


def spec_for(
    config: DiffusionConfig,
    space: spaces.Dict,
    action: spaces.Box,
    sizes: Mapping[str, tuple[int, int]],
    meta: Mapping[str, Any],
) -> DiffusionSpec:
    """Describe a policy.

    Args:
        config: see `DiffusionConfig`.
        space: what it observes beside pictures (`observed_space`).
        action: the environment's box.
        sizes: camera -> (height, width) of its pictures.
        meta: see `DiffusionSpec`.
    """
    shapes = {key: tuple(box.shape or ()) for key, box in space.spaces.items()}
    shapes |= {f"{PIXELS}.{view}": (*size, 3) for view, size in sizes.items()}
    low, high = action.low.astype(np.float32), action.high.astype(np.float32)
    return DiffusionSpec(config, shapes, low, high, meta)


def _lookup(obs: Mapping[str, Any], key: str, meta: Mapping[str, Any]) -> Any:
    group, _, view = key.partition(".")
    found = obs.get(group)
    found = found.get(view) if view and isinstance(found, Mapping) else found
    if found is None:
        trained = meta.get("env", "another environment")
        raise CheckpointError(
            f"the policy observes '{key}', the environment gives {list(obs)}: it was trained for "
            f"{trained}"
        )
    return found


def _tensor(key: str, stack: np.ndarray) -> Tensor:
    if key.startswith(PIXELS + "."):
        return as_input(torch.from_numpy(stack).permute(0, 3, 1, 2))
    return torch.from_numpy(stack.astype(np.float32))


def _lerobot_config(spec: DiffusionSpec) -> Any:
    from lerobot.configs import FeatureType, NormalizationMode, PolicyFeature
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig as LeRobotConfig

    kinds = {"agent_pos": FeatureType.STATE, "environment_state": FeatureType.ENV}
    inputs = {}
    for key, shape in spec.observation.items():
        kind = kinds.get(key, FeatureType.VISUAL)
        shape = (shape[2], *shape[:2]) if kind is FeatureType.VISUAL else shape
        inputs[lerobot_key(key)] = PolicyFeature(type=kind, shape=shape)
    ours, minmax = spec.config, NormalizationMode.MIN_MAX
    return LeRobotConfig(
        n_obs_steps=ours.n_obs_steps,
        horizon=ours.horizon,
        n_action_steps=ours.n_action_steps,
        drop_n_last_frames=0,
        input_features=inputs,
        output_features={
            "action": PolicyFeature(type=FeatureType.ACTION, shape=spec.low.shape),
        },
        # LeRobot leaves the environment's state as it is; here it is half of the input.
        normalization_mapping={
            "VISUAL": NormalizationMode.MEAN_STD,
            "STATE": minmax,
            "ENV": minmax,
            "ACTION": minmax,
        },
        pretrained_backbone_weights=None,
        use_group_norm=True,
        down_dims=tuple(ours.down_dims),
        kernel_size=ours.kernel_size,
        n_groups=ours.n_groups,
        diffusion_step_embed_dim=ours.diffusion_step_embed_dim,
        noise_scheduler_type="DDIM",
        num_train_timesteps=ours.num_train_timesteps,
        num_inference_steps=ours.num_inference_steps,
        do_mask_loss_for_padding=True,
        optimizer_lr=ours.learning_rate,
        device=ours.device,
        push_to_hub=False,
    )
