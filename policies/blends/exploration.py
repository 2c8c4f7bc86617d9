"""`exploration`: a bonus for new states and a small reward that the learner designs itself."""

from collections.abc import Mapping

import numpy as np
import torch
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn

from embodied_reward.errors import NonFiniteError
from embodied_reward.math.blending import exploration_bonus
from embodied_reward.types import Bool, Float32, Float64, Int64

from .base import Blend
from .config import BlendConfig
from .episodes import returns

UPDATES, BATCH = 20, 256  # gradient steps per round of the blend, decisions per step
EARLY = 256  # entered states that say how far apart states are
_COUNTS = ("visits", "planes", "offsets", "early")
FLOOR = 0.01  # smallest spread; what stood still at first is the newer when it moves


class ExplorationBlend(Blend):
    """Pay for states that were seldom entered, and for actions that turned out well.

    ExploRS (Devidze et al. 2022):  r' = r + F + b(s') + R(s, a)

    - b = 1 / sqrt(1 / bonus^2 + N(s')) counts visits, 0 at a terminal state. States of many
      dimensions are counted by the side of `bits` random hyperplanes they lie on (SimHash, Tang et
      al. 2017), standardised by the first 256 states entered; there is no bonus before.
    - R in [-designed, designed] is a small network. It climbs

          mean of (G - V(s)) (R(s, a) - E_{a' ~ pi} R(s, a'))

      with G the base reward's return and V its fitted mean: by how much following R would have
      changed the chance of actions with a good return, the source's self-shaping term. Deviations:
      networks for tables, and no factor pi(a | s), which has no bound for continuous actions.

    Optimal policy: *not* kept. The count bonus fades as 1 / sqrt(N); R may shift values by up to
    designed / (1 - gamma), 0.5 at the defaults and gamma = 0.98: keep `designed` small against
    (1 - gamma) of what a success pays, or 0.

    Args:
        config, count, gamma, seed: see `Blend`.
        widths: entries of observation and action.
        mean: Float32["o"] and
        scale: Float32["o"] that standardise what the networks read; None for zeros and ones.
    """

    about = "pays for new states and good actions: it does NOT keep the optimal policy"
    bonuses = True

    def __init__(
        self,
        config: BlendConfig,
        *,
        count: int,
        gamma: float,
        seed: int = 0,
        widths: tuple[int, int],
        mean: Float32 | None = None,
        scale: Float32 | None = None,
    ) -> None:
        super().__init__(config, count=count, gamma=gamma, seed=seed)
        o, a = widths
        self.mean = np.zeros(o, np.float32) if mean is None else mean
        self.scale = np.ones(o, np.float32) if scale is None else scale
        self.planes = self.generator.normal(size=(o, config.bits))
        self.offsets = self.generator.normal(size=config.bits)
        self.early = np.zeros((0, o), np.float32)
        self.visits: Int64 = np.zeros(2**config.bits, np.int64)
        generator = torch.Generator().manual_seed(int(self.generator.integers(2**31)))
        self.reward, self.value = (_network(n, generator) for n in (o + a, o))
        learned = [*self.reward.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(learned, lr=1e-3)

    def cells(self, obs: Float32) -> Int64:
        """Return the cell Int64["n"] in which each observation [n o] is counted."""
        standard = (obs - self.early.mean(0)) / self.early.std(0).clip(min=FLOOR)
        return (standard @ self.planes + self.offsets > 0) @ (1 << np.arange(self.config.bits))

    def saw(self, next_obs: Float32) -> None:
        """Count states that were entered."""
        if not self._counting:
            self.early = np.concatenate([self.early, next_obs])
            next_obs = self.early if self._counting else next_obs[:0]
        if len(next_obs):
            np.add.at(self.visits, self.cells(next_obs), 1)

    @property
    def _counting(self) -> bool:
        return len(self.early) >= EARLY

    def bonus(self, obs: Float32, action: Float32, next_obs: Float32, terminated: Bool) -> Float64:
        """Return b(s') + R(s, a), Float64["n"]."""
        count = np.zeros(len(obs))
        if self._counting:
            count = exploration_bonus(self.visits[self.cells(next_obs)], self.config.bonus)
        with torch.no_grad():
            designed = self._designed(self._tensor(obs), torch.from_numpy(np.array(action)))
        return np.where(terminated, 0.0, count) + designed.numpy().astype(np.float64)

    def _update(self, policy: BasePolicy, rounds: int) -> dict[str, float]:
        seen = self.window.together()
        gains = np.concatenate([returns(e.base, self.gamma) for e in self.window.episodes])
        loss = torch.zeros(())
        for _ in range(rounds * UPDATES if self.config.designed else 0):
            rows = self.generator.integers(len(seen), size=min(BATCH, len(seen)))
            loss = self._loss(policy, seen.obs[rows], seen.action[rows], gains[rows])
            if not torch.isfinite(loss):
                raise NonFiniteError(
                    f"the self-designed reward's loss is {loss.item()}; nothing was changed"
                )
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
        entered = int((self.visits > 0).sum())
        return {"blend/states": float(entered), "blend/design_loss": loss.item()}

    def _loss(self, policy: BasePolicy, obs: Float32, action: Float32, gains: Float64) -> Tensor:
        x, taken = self._tensor(obs), torch.from_numpy(action)
        value = self.value(x)[:, 0]
        gain = torch.from_numpy(gains).float()
        with torch.no_grad():
            raw = torch.from_numpy(obs).to(policy.device)
            other = policy._predict(raw, deterministic=False).cpu().clamp(-1, 1)
        preferred = self._designed(x, taken) - self._designed(x, other)
        design = ((gain - value.detach()) * preferred).mean() / self.config.designed
        return (value - gain).square().mean() - design

    def _designed(self, x: Tensor, action: Tensor) -> Tensor:
        return self.config.designed * torch.tanh(self.reward(torch.cat([x, action], 1))[:, 0])

    def _tensor(self, obs: Float32) -> Tensor:
        return torch.from_numpy((obs - self.mean) / self.scale).float()

    # --- checkpoints ---

    def arrays(self) -> dict[str, np.ndarray]:
        """Return counts, networks and optimiser besides the window."""
        parts = {name: getattr(self, name) for name in _COUNTS}
        state = self.optimizer.state_dict()["state"]
        moments = {f"adam.{i}.{k}": np.asarray(v) for i, s in state.items() for k, v in s.items()}
        return {**super().arrays(), **parts, **self._weights(), **moments}

    def restore(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take `arrays()` back."""
        super().restore(arrays)
        for name in _COUNTS:
            setattr(self, name, arrays[name].copy())
        for name, network in self._networks().items():
            found = {k: arrays[f"{name}.{k}"].copy() for k in network.state_dict()}
            network.load_state_dict({k: torch.from_numpy(v) for k, v in found.items()})
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in arrays.items():
            if key.startswith("adam."):
                _, index, name = key.split(".")
                state.setdefault(int(index), {})[name] = torch.from_numpy(np.array(value))
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})

    def _networks(self) -> dict[str, nn.Module]:
        return {"reward": self.reward, "value": self.value}

    def _weights(self) -> dict[str, np.ndarray]:
        pairs = [(n, m.state_dict()) for n, m in self._networks().items()]
        return {f"{name}.{k}": v.numpy() for name, state in pairs for k, v in state.items()}


def _network(inputs: int, generator: torch.Generator) -> nn.Sequential:
    """Return a small network whose output starts at 0."""
    hidden = 64
    net = nn.Sequential(nn.Linear(inputs, hidden), nn.Tanh(), nn.Linear(hidden, 1))
    with torch.no_grad():
        net[0].weight.normal_(0.0, inputs**-0.5, generator=generator)  # type: ignore[operator]
        for layer in (net[0].bias, net[2].weight, net[2].bias):
            layer.zero_()  # type: ignore[operator]
    return net
