"""ACT with a loss per sample."""

from typing import Any

from lerobot.policies.act.modeling_act import ACTPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor

from embodied_reward.lerobot_plugin.configuration_er_act import ErActConfig


class ErActPolicy(ACTPolicy):
    """LeRobot's ACT; `forward` also takes `reduction="none"`."""

    config_class = ErActConfig
    name = "er_act"

    def forward(  # type: ignore[override]
        self, batch: dict[str, Any], reduction: str = "mean"
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss and its parts.

        Args:
            batch: what LeRobot's preprocessor gives.
            reduction: `mean`, ACT's own scalar, or `none`: Tensor["b"] with that mean.
        """
        if reduction == "mean":
            return super().forward(batch)
        if self.config.image_features:
            batch = {**batch, OBS_IMAGES: [batch[key] for key in self.config.image_features]}
        actions, (mean, log_variance) = self.model(batch)
        valid = (~batch["action_is_pad"]).unsqueeze(-1).to(actions)
        error = ((batch[ACTION] - actions).abs() * valid).sum((1, 2))
        # ACT averages over all valid steps of the batch, so a padded sample counts for less.
        loss = error * len(error) / (valid.sum() * actions.shape[-1]).clamp(min=1)
        logs = {"l1_loss": loss.mean().item()}
        if self.config.use_vae and log_variance is not None:
            # KL(N(mean, variance) || N(0, 1)), Kingma and Welling 2014, appendix B.
            kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum(-1)
            logs["kld_loss"] = kl.mean().item()
            loss = loss + self.config.kl_weight * kl
        return loss, logs
