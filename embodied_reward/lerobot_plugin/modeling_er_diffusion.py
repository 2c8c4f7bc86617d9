"""A diffusion policy with a loss per sample."""

from typing import Any

import torch
import torch.nn.functional as F
from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy
from lerobot.utils.constants import ACTION, OBS_IMAGES
from torch import Tensor

from embodied_reward.lerobot_plugin.configuration_er_diffusion import ErDiffusionConfig


class ErDiffusionPolicy(DiffusionPolicy):
    """LeRobot's diffusion policy; `forward` also takes `reduction="none"`."""

    config_class = ErDiffusionConfig
    name = "er_diffusion"

    def forward(  # type: ignore[override]
        self, batch: dict[str, Any], reduction: str = "mean"
    ) -> tuple[Tensor, dict[str, float] | None]:
        """Return the loss, and nothing for the log.

        Args:
            batch: what LeRobot's preprocessor gives.
            reduction: `mean`, the policy's own scalar, or `none`: Tensor["b"] with that mean.
        """
        if reduction == "mean":
            return super().forward(batch)
        return self._losses(self._with_images(batch)), None

    def _with_images(self, batch: dict[str, Any]) -> dict[str, Any]:
        keys = list(self.config.image_features)
        if not keys:
            return batch
        single = self.config.n_obs_steps == 1
        views = [batch[k].unsqueeze(1) if single and batch[k].ndim == 4 else batch[k] for k in keys]
        return {**batch, OBS_IMAGES: torch.stack(views, dim=-4)}

    def _losses(self, batch: dict[str, Any]) -> Tensor:
        """Denoising loss of every sample (Ho et al. 2020, eq. 14), Tensor["b"]."""
        model, actions = self.diffusion, batch[ACTION]
        condition = model._prepare_global_conditioning(batch)
        noise = torch.randn(actions.shape, device=actions.device)
        scheduler: Any = model.noise_scheduler
        steps = scheduler.config.num_train_timesteps
        at = torch.randint(0, steps, (len(actions),), device=actions.device)
        noisy = scheduler.add_noise(actions, noise, at)
        found = model.unet(noisy, at, global_cond=condition)
        target = noise if self.config.prediction_type == "epsilon" else actions
        error = F.mse_loss(found, target, reduction="none")
        if not self.config.do_mask_loss_for_padding:
            return error.mean((1, 2))
        valid = (~batch["action_is_pad"]).unsqueeze(-1).to(error)
        # The policy averages over all valid steps of the batch.
        total = (valid.sum() * error.shape[-1]).clamp(min=1)
        return (error * valid).sum((1, 2)) * len(error) / total
