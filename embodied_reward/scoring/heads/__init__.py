"""Preference heads: small networks on the features of a shared trunk, one file per method."""

from embodied_reward.scoring.heads.adversarial import (
    AdversarialConfig,
    AdversarialHead,
    OnlineDiscriminator,
)
from embodied_reward.scoring.heads.base import HeadConfig, PreferenceHead
from embodied_reward.scoring.heads.bradley_terry import BradleyTerryConfig, BradleyTerryHead
from embodied_reward.scoring.heads.choices import TIE, UNJUDGED, Choices, Pairs
from embodied_reward.scoring.heads.heteroscedastic import HeteroscedasticConfig, HeteroscedasticHead
from embodied_reward.scoring.heads.n_way import NWayConfig, NWayHead
from embodied_reward.scoring.heads.reference import ReferenceConfig, ReferenceHead
from embodied_reward.scoring.heads.uncertainty import UncertaintyConfig, UncertaintyHead
from embodied_reward.scoring.heads.user import UserConfig, UserHead
from embodied_reward.scoring.heads.voting import VotingConfig, VotingHead

# type -> class; the configs register under the same names in `HeadConfig`.
HEADS: dict[str, type[PreferenceHead]] = {
    "bradley_terry": BradleyTerryHead,
    "heteroscedastic": HeteroscedasticHead,
    "n_way": NWayHead,
    "reference": ReferenceHead,
    "adversarial": AdversarialHead,
    "uncertainty": UncertaintyHead,
    "voting": VotingHead,
    "user": UserHead,
}

__all__ = [
    "HEADS",
    "TIE",
    "UNJUDGED",
    "AdversarialConfig",
    "AdversarialHead",
    "BradleyTerryConfig",
    "BradleyTerryHead",
    "Choices",
    "HeadConfig",
    "HeteroscedasticConfig",
    "HeteroscedasticHead",
    "NWayConfig",
    "NWayHead",
    "OnlineDiscriminator",
    "Pairs",
    "PreferenceHead",
    "ReferenceConfig",
    "ReferenceHead",
    "UncertaintyConfig",
    "UncertaintyHead",
    "UserConfig",
    "UserHead",
    "VotingConfig",
    "VotingHead",
]
