"""What fine-tuning a diffusion policy adds to a run of `er train-policy`."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from embodied_reward import config as configs
from embodied_reward.cli.policy_env import DEFAULT_SIZE
from embodied_reward.data import EpisodeSequence
from embodied_reward.errors import ConfigError
from embodied_reward.policies.checkpoint import PolicySpec, pretrained_folder
from embodied_reward.policies.config import DiffusionConfig, PolicyConfig, PPOConfig, SACConfig
from embodied_reward.policies.diffusion.actor import CARD
from embodied_reward.policies.diffusion.windows import Windows, build_windows
from embodied_reward.policies.evaluate import Acts
from embodied_reward.policies.finetune.actor import BASE, steered
from embodied_reward.policies.finetune.agents import build_agent
from embodied_reward.policies.finetune.config import DSRLNAConfig, SteeringConfig, TuningConfig
from embodied_reward.policies.finetune.env import Plans, frozen_actor
from embodied_reward.policies.finetune.learners import build_tuned
from embodied_reward.policies.finetune.tuned import DenoisingPolicy
from embodied_reward.policies.replay import Relabel

if TYPE_CHECKING:
    from embodied_reward.cli.train_policy import TrainPolicyConfig
    from embodied_reward.envs import VisualEnv


class Finetuning:
    """A method and the diffusion policy that it begins with.

    Args:
        method: `--finetune.*`.
        folder: `pretrained_model` of the diffusion policy.
    """

    def __init__(self, method: SteeringConfig | TuningConfig, folder: Path) -> None:
        self.method, self.plans = method, Plans(str(folder), method)

    def cameras(self) -> dict[str, Any]:
        """Return what an environment takes for a policy that sees pictures."""
        spec = self.plans.spec
        views, size = spec.rendered((), DEFAULT_SIZE)
        return {"views": views, "size": size, "pixels": bool(spec.views)}

    def agent(self, rate: float) -> PolicyConfig:
        """Return the agent's configuration for `rate` actions per second, its discount worked out.

        One decision is a plan of several actions.
        """
        steps = frozen_actor(self.plans.folder).spec.config.n_action_steps
        return self.method.rl.plain().at_rate(rate / steps)

    def build(
        self,
        agent: PolicyConfig,
        env: VecEnv,
        *,
        relabel: Relabel,
        seed: int,
        demos: tuple[EpisodeSequence, "VisualEnv"] | None = None,
    ) -> BaseAlgorithm:
        """Build the learner on environments of plans.

        Args:
            agent: see `agent`.
            env: of `PlanEnv`s.
            relabel: see `build_sac`.
            seed: of everything the learner draws.
            demos: demonstrations and an environment whose observations they hold, for `rwr`.
        """
        if isinstance(self.method, TuningConfig):
            assert isinstance(agent, PPOConfig)
            actor = frozen_actor(self.plans.folder)
            windows = windows_of(*demos, actor.spec.config) if demos else None
            return build_tuned(self.method, agent, actor, env, seed=seed, windows=windows)
        assert isinstance(agent, SACConfig)
        base = frozen_actor(self.plans.folder)
        return build_agent(self.method, agent, env, relabel=relabel, seed=seed, base=base)

    def acting(self, network: BasePolicy, spec: PolicySpec) -> Acts:
        """Return what acts in the evaluation environment."""
        if isinstance(network, DenoisingPolicy):
            return network.tuned_actor(spec.meta)
        return steered(self.method, self.plans.steering(), network, spec)

    def write_more(self, folder: Path) -> None:
        """Add the frozen diffusion policy to a checkpoint's `pretrained_model`."""
        if isinstance(self.method, SteeringConfig):
            (folder / BASE).mkdir()
            frozen_actor(self.plans.folder).save(folder / BASE)

    def meta(self) -> Mapping[str, Any]:
        """Return what a checkpoint says of the method."""
        found: dict[str, Any] = {
            "finetune": {"type": self.method.type, **configs.encode(self.method)}
        }
        if isinstance(self.method, DSRLNAConfig):
            found["noise_shape"] = list(frozen_actor(self.plans.folder).noise_shape)
        return found


def windows_of(episodes: EpisodeSequence, env: "VisualEnv", policy: DiffusionConfig) -> Windows:
    """Cut demonstrations into the windows of a diffusion policy."""
    observation, action = env.observation_space, env.action_space
    assert isinstance(observation, spaces.Dict)
    assert isinstance(action, spaces.Box)
    return build_windows(
        episodes,
        observation,
        action,
        views=policy.views,
        n_obs_steps=policy.n_obs_steps,
        horizon=policy.horizon,
        n_action_steps=policy.n_action_steps,
    )


def finetuning_of(config: "TrainPolicyConfig") -> Finetuning | None:
    """Return how a diffusion policy is fine-tuned, None where the policy itself is trained.

    Raises:
        ConfigError: `--policy.path` holds no diffusion policy.
    """
    method = config.finetune
    if not isinstance(method, SteeringConfig | TuningConfig):
        return None
    assert isinstance(config.policy, DiffusionConfig)
    folder = pretrained_folder(Path(str(config.policy.path)))
    if not (folder / CARD).is_file():
        raise ConfigError(
            f"--policy.path='{config.policy.path}' is no diffusion policy; train one with "
            "`er train-policy --policy.type=diffusion`"
        )
    return Finetuning(method, folder)
