r"""`perceptual`: which step of the task is this, as features of any frozen encoder see it?

From one to ten demonstrations and without a gradient step. Every demonstration is cut into the
same number of steps (`math/segmentation.py`); per step and view the most telling features of all
depths of the encoder are kept, with a Gaussian each (`math/step_reward.py`). With q_g,v the mean
squared distance to step g in view v and V the views that show something,

    R_g = exp(-1/2 mean_{v in V} q_g,v)        Phi = clip(sum_{g>=2} 2^(g-1) R_g / top, 0, 1)

`top` is the mean over the demonstrations of the largest such sum in each, because a typical frame
of a step is not at its centre (R_g is about 0.6 there) and the sum would never come near 1.

The uncertainty says how strange a frame is: with m = min(max_g R_g / typical, 1), where `typical`
is the mean of max_g R_g over the demonstrations' frames, the potential is right with probability m
and anything in [0, 1] otherwise:

    uncertainty^2 = (1 - m) (1/12 + (Phi - 1/2)^2)

There is no estimate of success: that the last step looks near is a potential, and success is NaN.

After Sermanet, Xu and Levine (arXiv:1612.06699); deviations are in `docs/perceptual.md`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from embodied_reward import config as configs
from embodied_reward import weights
from embodied_reward.errors import ConfigError, DatasetError
from embodied_reward.math.step_reward import combine
from embodied_reward.rewards.base import Card, Carry, FittedModel
from embodied_reward.rewards.perceptual_config import PerceptualConfig
from embodied_reward.rewards.perceptual_encoder import DepthEncoder, load_base
from embodied_reward.rewards.perceptual_fit import (
    Demo,
    ViewSteps,
    check_lengths,
    choose,
    discover,
    fit_views,
    largest_number,
)
from embodied_reward.rewards.visual import VisualModel, split_presence
from embodied_reward.types import Episode, EpisodeScores, Float64, Int64, Scores
from embodied_reward.vision.encoders import Encoder, rebuild
from embodied_reward.vision.frames import episode_frames

EMPTY = {
    "chosen": torch.zeros(0, 0, 0, dtype=torch.int64),
    "centre": torch.zeros(0, 0, 0),
    "spread": torch.zeros(0, 0, 0),
    "fitted": torch.zeros(0, dtype=torch.bool),
    "top": torch.tensor(torch.nan),
    "typical": torch.tensor(torch.nan),
}


class PerceptualModel(VisualModel, FittedModel):
    """Rewards of discovered steps; see the module docstring.

    Attributes:
        chosen: Int64 Tensor["v g n"], places among the encoder's columns.
        centre, spread: Tensor["v g n"], in the units of the features.
        fitted: bool Tensor["v"], whether the view saw every step in some demonstration.
        top, typical: see the module docstring.
        cuts: episode source -> boundaries Int64["g+1"] in rows, of the last `fit`; not saved.
    """

    name: ClassVar[str] = "perceptual"
    config: PerceptualConfig
    chosen: Tensor
    centre: Tensor
    spread: Tensor
    fitted: Tensor
    top: Tensor
    typical: Tensor

    def __init__(self, config: PerceptualConfig, base: Encoder, *, task: str = "") -> None:
        """Wrap an encoder; use `create` to build one for a dataset, `load` for a saved one."""
        super().__init__()
        self.config, self.task, self._digest = config, task, ""
        self.cuts: dict[str, Int64] = {}
        self.network = nn.Module()
        self.network.encoder = DepthEncoder(base, config.grid)
        self.network.adapter = nn.Identity()
        for name, value in EMPTY.items():
            self.register_buffer(name, value.clone())

    @classmethod
    def create(cls, config: PerceptualConfig, *, task: str = "") -> Self:
        """Build an unfitted model; `config.views` must be set. Uses torch's global seed."""
        return cls(config, load_base(config.encoder), task=task).eval()

    @property
    def card(self) -> Card:
        """See the base class."""
        return Card(
            type=self.name,
            views=self.config.views,
            image_size=self.image_size,
            task=self.task,
            weights_sha256=self._digest,
            extra={"success": False, "steps": self.steps},
        )

    @property
    def steps(self) -> int:
        """Number of steps; 0 before fitting."""
        return self.chosen.shape[1]

    # --- fitting ---

    def fit(
        self, episodes: Sequence[Episode], *, progress: Callable[[int, int], None]
    ) -> dict[str, float]:
        """See the base class; logs `steps`, and of every number tried what `Trial` says."""
        solved = [e for e in episodes if e.success is not False]
        if not solved:
            raise DatasetError(
                f"none of the {len(episodes)} training episodes is successful; steps are found in "
                "demonstrations, add some"
            )
        check_lengths(solved, self.config)
        encoder, old = self.network.encoder, self.network.encoder.columns
        encoder.columns = old[:0]
        try:
            return self._fit(solved, progress)
        except BaseException:
            encoder.columns = old
            raise

    def _fit(
        self, episodes: Sequence[Episode], progress: Callable[[int, int], None]
    ) -> dict[str, float]:
        demos: list[Demo] = []
        for episode in episodes:
            demos.append(self._demo(episode))
            progress(len(demos), len(episodes) + 1)
        tried = 0 if self.config.steps else largest_number(demos, self.config) - 1
        total, done = len(demos) + tried + 1, len(demos)

        def advance() -> None:
            nonlocal done
            done += 1
            progress(done, total)

        steps, trials = self.config.steps, []
        if not steps:
            steps, trials = choose(demos, self.config, advance)
        bounds = discover(demos, steps, self.config)
        self._keep(fit_views(demos, bounds, self.config), demos)
        pairs = zip(demos, bounds, strict=True)
        self.cuts = {demo.source: demo.rows(b) for demo, b in pairs}
        progress(total, total)
        logs = {f"order_{t.steps}": t.order for t in trials}
        logs |= {f"recognised_{t.steps}": t.recognised for t in trials}
        return {"steps": float(steps), **logs}

    def _demo(self, episode: Episode) -> Demo:
        """Encode every depth of evenly spread frames."""
        frames, present = episode_frames(episode, self.config.views, self.image_size)
        count = min(len(frames), self.config.frames)
        at = np.linspace(0, len(frames) - 1, count).round().astype(np.int64)
        seen, there = split_presence(self.features(frames[at], present[at]))
        return Demo(seen.cpu().numpy(), there.cpu().numpy(), at, len(episode), episode.source)

    def _keep(self, views: Sequence[ViewSteps | None], demos: Sequence[Demo]) -> None:
        """Store the fit over the columns that it uses, and set the scale of the potential."""
        some = [view for view in views if view is not None]
        if not some:
            raise DatasetError(
                f"no view of {', '.join(self.config.views)} shows every step of a demonstration; "
                "look at the pictures with `er data inspect`"
            )
        columns = np.unique(np.concatenate([view.chosen for view in some]))
        full = [view or some[0] for view in views]  # `fitted` says which of them count
        places = [np.searchsorted(columns, view.chosen) for view in full]
        device = self.network.encoder.columns.device
        self.network.encoder.columns = torch.from_numpy(columns).to(device)
        self.chosen = torch.from_numpy(np.stack(places)).to(device)
        self.centre = torch.from_numpy(np.stack([v.centre for v in full])).float().to(device)
        self.spread = torch.from_numpy(np.stack([v.spread for v in full])).float().to(device)
        self.fitted = torch.tensor([view is not None for view in views], device=device)
        found = [self._rewards(*(x.to(device) for x in _tensors(d, columns))) for d in demos]
        peaks = [combine(rewards[np.isfinite(rewards).all(1)]).max() for rewards in found]
        best = np.concatenate(found).max(1)
        self.top = torch.tensor(float(np.mean(peaks)), device=device)
        self.typical = torch.tensor(float(np.nanmean(best)), device=device)

    def illustrate(self, episodes: Sequence[Episode], folder: Path) -> list[Path]:
        """Write `steps.png` and `steps.json` of the demonstrations of the last `fit`."""
        from embodied_reward.rewards.perceptual_sheet import write_sheet, write_steps

        found = {e.source: e for e in episodes}
        rows = [
            (found[source], bounds, self.score_episode(found[source]).potential)
            for source, bounds in self.cuts.items()
        ]
        if not rows:
            return []
        pairs = [(episode, bounds) for episode, bounds, _ in rows]
        views = self.config.views
        return [
            write_sheet(folder / "steps.png", rows, views),
            write_steps(folder / "steps.json", pairs),
        ]

    # --- inference ---

    def start(self, features: Tensor) -> Carry:
        """See the base class; the potential depends on the current frame alone."""
        return {}

    @torch.inference_mode()
    def score(self, features: Tensor, carry: Carry) -> tuple[Scores, Carry]:
        """See the base class."""
        potential, spread = self._read(*split_presence(features))
        nothing = np.full_like(potential, np.nan)
        return Scores(potential, nothing, spread, np.isfinite(potential)), carry

    @torch.inference_mode()
    def score_episode(self, episode: Episode) -> EpisodeScores:
        """See the base class; gives the potential of every view on its own as well.

        Frames without any working camera are NaN, and so is a view where it is masked.
        """
        features, present = split_presence(self.episode_features(episode))
        potential, spread = self._read(features, present)
        alone = torch.eye(len(self.config.views), dtype=torch.bool, device=features.device)
        per_view = {
            view: self._read(features, present & alone[k])[0]
            for k, view in enumerate(self.config.views)
        }
        return EpisodeScores(potential, np.full_like(potential, np.nan), spread, {}, per_view)

    @torch.inference_mode()
    def step_rewards(self, episode: Episode) -> Float64:
        """Return R_g of every step, Float64["t g"] in [0, 1]; NaN where no camera works."""
        return self._rewards(*split_presence(self.episode_features(episode)))

    def level(self, features: Tensor, start: Tensor, task: str = "") -> Tensor:
        """See the base class: the sum over steps, before it is scaled and clipped."""
        rewards = torch.exp(-0.5 * self._distances(*split_presence(features)))
        weights = 2.0 ** torch.arange(1, self.steps, device=rewards.device)
        return rewards[:, 1:] @ weights / weights.sum()

    def _distances(self, features: Tensor, present: Tensor) -> Tensor:
        """Return Tensor["n g"] of Tensor["n v k"], mean over the views that are present."""
        off = [
            (features[:, v, self.chosen[v]] - self.centre[v]) / self.spread[v]
            for v in range(len(self.config.views))
        ]
        far = torch.stack([o.square().mean(-1) for o in off], 1)
        seen = (present & self.fitted).unsqueeze(-1)
        return torch.where(seen, far, 0.0).sum(1) / seen.sum(1)

    def _rewards(self, features: Tensor, present: Tensor) -> Float64:
        """Return R_g Float64["n g"] of Tensor["n v k"]; NaN without a view."""
        return torch.exp(-0.5 * self._distances(features, present).cpu().double()).numpy()

    def _read(self, features: Tensor, present: Tensor) -> tuple[Float64, Float64]:
        """Return potential and uncertainty, each Float64["n"]; NaN without a view."""
        if not self.steps:
            raise ConfigError("this perceptual reward was never fitted; call fit() first")
        rewards = self._rewards(features, present)
        potential = np.clip(combine(rewards) / float(self.top), 0.0, 1.0)
        known = np.minimum(rewards.max(1) / float(self.typical), 1.0)
        return potential, np.sqrt((1 - known) * (1 / 12 + np.square(potential - 0.5)))

    # --- persistence ---

    def save(self, folder: Path) -> None:
        """See the base class; the encoder is included."""
        tree = {
            "type": self.name,
            "task": self.task,
            "config": configs.encode(self.config),
            "encoder": self.network.encoder.base.description(),
        }
        weights.save(self, tree, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load `config.json` and `model.safetensors`. Raises CheckpointError if altered."""
        tree, state, digest = weights.load(folder)
        fields = {k: v for k, v in tree["config"].items() if k != "type"}
        config = configs.decode(PerceptualConfig, fields)
        model = cls(config, rebuild(tree["encoder"]), task=tree["task"])
        for name in EMPTY:
            setattr(model, name, state[name])  # their sizes depend on the demonstrations
        model.network.encoder.columns = state["network.encoder.columns"]
        model.load_state_dict(state)
        model._digest = digest
        return model.eval()


def _tensors(demo: Demo, columns: Int64) -> tuple[Tensor, Tensor]:
    """Return what the fitted model would be given of a demonstration."""
    return torch.from_numpy(demo.features[:, :, columns]), torch.from_numpy(demo.present)
