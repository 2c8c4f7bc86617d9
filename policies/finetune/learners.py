"""Which learner trains the weights of a diffusion policy, by its configuration."""

from stable_baselines3.common.vec_env import VecEnv

from ..config import PPOConfig
from ..diffusion.actor import DiffusionActor
from ..diffusion.windows import Windows
from .config import ChainConfig, DPPOConfig, TuningConfig
from .dppo import ChainPPO, build_dppo
from .euphonium import GuidedPolicy, GuidedPPO
from .judge import JudgedPolicy
from .options import EuphoniumConfig, PRDPConfig, PreferenceConfig, TPGRPOConfig
from .plan_options import RWRConfig
from .plans import build_plans, demonstrations
from .prdp import PairRegression
from .preference import PreferenceOptimisation
from .rwr import RewardWeighted
from .tp_grpo import TurningPPO
from .tuned import DenoisingPolicy
from .weights import WeightPPO

CHAINS: dict[type[TuningConfig], tuple[type[ChainPPO], type[DenoisingPolicy]]] = {
    DPPOConfig: (ChainPPO, DenoisingPolicy),
    PRDPConfig: (PairRegression, DenoisingPolicy),
    PreferenceConfig: (PreferenceOptimisation, DenoisingPolicy),
    TPGRPOConfig: (TurningPPO, JudgedPolicy),
    EuphoniumConfig: (GuidedPPO, GuidedPolicy),
}
"""Methods that follow the likelihood of the denoising chain: learner and network."""


def build_tuned(
    method: TuningConfig,
    rl: PPOConfig,
    actor: DiffusionActor,
    env: VecEnv,
    *,
    seed: int = 0,
    windows: Windows | None = None,
) -> WeightPPO:
    """Build what `--finetune.type` names; see `build_learner`.

    Args:
        method: likewise.
        rl: likewise.
        actor: likewise.
        env: likewise.
        seed: likewise.
        windows: demonstrations, for methods with an anchor.
    """
    if isinstance(method, RWRConfig):
        demos = None if windows is None else demonstrations(actor, windows)
        return build_plans(method, rl, actor, env, algorithm=RewardWeighted, seed=seed, demos=demos)
    assert isinstance(method, ChainConfig)
    algorithm, network = CHAINS[type(method)]
    more = {"guidance": method.guidance} if isinstance(method, EuphoniumConfig) else None
    return build_dppo(
        method, rl, actor, env,
        seed=seed, algorithm=algorithm, network=network, network_options=more,
    )  # fmt: skip
