"""The denoising of a plan as a chain of Gaussian steps, whose likelihood can be followed.

Step k goes from latent x_k to x_{k+1}; step 0 is the noisiest, x_K is the plan. With the DDIM
standard deviation sigma_k (Song et al. 2021, arXiv:2010.02502, equations 12 and 16)

    x_{k+1} ~ N(mean_k(x_k), max(sigma_k, min_std)^2)

The floor is DPPO's (Ren et al. 2024, arXiv:2409.00588): where the sampler itself would draw
nothing, there would be neither exploration nor a likelihood. With eta = 0 and no floor a chain is
LeRobot's own deterministic sampling.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from embodied_reward.errors import ConfigError

LARGEST_NOISE = 3.0  # standard deviations; DPPO's


class Chain(nn.Module):
    """The steps of LeRobot's DDIM sampler for one diffusion policy.

    Args:
        model: LeRobot's `DiffusionPolicy`; only its schedule is read.
        eta: 0 makes DDIM deterministic, 1 gives it DDPM's variance.
        min_std: floor of a step's standard deviation, in units of half the action range.

    Raises:
        ConfigError: the policy was not made for DDIM.
    """

    def __init__(self, model: Any, *, eta: float, min_std: float) -> None:
        super().__init__()
        scheduler = model.diffusion.noise_scheduler
        if model.config.noise_scheduler_type != "DDIM":
            raise ConfigError(
                f"fine-tuning follows DDIM, the policy has {model.config.noise_scheduler_type}"
            )
        scheduler.set_timesteps(model.diffusion.num_inference_steps)
        times = scheduler.timesteps.clone().long()
        stride = scheduler.config.num_train_timesteps // len(times)
        levels = scheduler.alphas_cumprod
        later = times - stride
        end = torch.as_tensor(scheduler.final_alpha_cumprod, dtype=levels.dtype)
        kept, kept_next = levels[times], torch.where(later >= 0, levels[later.clamp(min=0)], end)
        variance = (1 - kept_next) / (1 - kept) * (1 - kept / kept_next)
        sigma = eta * variance.clamp(min=0).sqrt()
        self.steps = len(times)
        self._predicts_noise = model.config.prediction_type == "epsilon"
        self._limit = model.config.clip_sample_range if model.config.clip_sample else math.inf
        start = model.config.n_obs_steps - 1
        self.used = slice(start, start + model.config.n_action_steps)
        whole = model.config.horizon * model.config.action_feature.shape[0]
        last = model.config.n_action_steps * model.config.action_feature.shape[0]
        self.times: Tensor
        self.kept: Tensor
        self.kept_next: Tensor
        self.sigma: Tensor
        self.std: Tensor
        self.numbers: Tensor  # that each step's likelihood is an average over
        numbers = torch.tensor([float(whole)] * (len(times) - 1) + [float(last)])
        columns = {"times": times, "kept": kept, "kept_next": kept_next, "sigma": sigma}
        columns["numbers"] = numbers
        for name, column in columns.items():
            self.register_buffer(name, column, persistent=False)
        self.register_buffer("std", sigma.clamp(min=min_std), persistent=False)

    def mean(self, network: nn.Module, x: Tensor, k: Tensor, condition: Tensor) -> Tensor:
        """Return the mean [b h a] of step k.

        Args:
            network: LeRobot's U-Net, or anything called as it is.
            x: latents [b h a].
            k: Int64[b], steps.
            condition: [b c], what the network knows of the observations.
        """
        return self.predict(network, x, k, condition)[0]

    def predict(
        self, network: nn.Module, x: Tensor, k: Tensor, condition: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the mean of step k and the plan that it expects at the end, each [b h a].

        Arguments are those of `mean`.
        """
        kept, following = self._at(self.kept, k), self._at(self.kept_next, k)
        out = network(x, self.times[k], global_cond=condition)
        if self._predicts_noise:
            noise, clean = out, (x - (1 - kept).sqrt() * out) / kept.sqrt()
        else:
            noise, clean = (x - kept.sqrt() * out) / (1 - kept).sqrt(), out
        clean = clean.clamp(-self._limit, self._limit)
        rest = (1 - following - self._at(self.sigma, k).square()).clamp(min=0)
        return following.sqrt() * clean + rest.sqrt() * noise, clean

    @torch.no_grad()
    def sample(
        self,
        networks: list[nn.Module],
        first: Tensor,
        condition: Tensor,
        push: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Denoise; draws from torch's global generator.

        Args:
            networks: of every step.
            first: normal noise [b h a].
            condition: see `mean`.
            push: what is added to a step's mean, of the expected plans [b h a] and k [b].

        Returns:
            The chain [b K+1 h a], noise first and plan last.
        """
        chain = [first]
        for step, network in enumerate(networks):
            k = torch.full((len(first),), step, device=first.device)
            mean, clean = self.predict(network, chain[-1], k, condition)
            mean = mean if push is None else mean + push(clean, k)
            noise = torch.randn_like(mean).clamp(-LARGEST_NOISE, LARGEST_NOISE)
            chain.append(mean + self.std[step] * noise)
        return torch.stack(chain, dim=1)

    def log_prob(self, mean: Tensor, following: Tensor, k: Tensor) -> Tensor:
        """Return the log-likelihood [b] of step k, averaged over what it draws.

        An average instead of a sum, as in DPPO's code: ratios of long plans stay near 1. Of the
        plan itself only the actions that are carried out count; in earlier latents all do, because
        the network mixes them.

        Args:
            mean: [b h a], see `mean`.
            following: the latents that were drawn, [b h a].
            k: Int64[b].
        """
        std = self._at(self.std, k)
        each = -0.5 * ((following - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)
        return self._averaged(each, k)

    def divergence(self, mean: Tensor, other: Tensor, k: Tensor) -> Tensor:
        """Return the divergence [b] of step k between two means: (a - b)^2 / (2 std^2), averaged.

        Of two Gaussians of one standard deviation this is KL(a, b) = KL(b, a).
        """
        each = 0.5 * ((mean - other) / self._at(self.std, k)).square()
        return self._averaged(each, k)

    def _averaged(self, each: Tensor, k: Tensor) -> Tensor:
        last = each[:, self.used].flatten(1).mean(dim=1)
        return torch.where(k == self.steps - 1, last, each.flatten(1).mean(dim=1))

    @staticmethod
    def _at(column: Tensor, k: Tensor) -> Tensor:
        return column[k][:, None, None]
