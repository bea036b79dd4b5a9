r"""DOODL: no weight is trained; for each prompt the initial latent is moved until the reward of its sample rises.

The sample of a latent :math:`x_T` comes from :class:`~rlr.modules.latents.edict.EDICT`, whose gradient in :math:`x_T` needs
the memory of one step, however many there are. With the reward's mean over the two coupled samples, one iteration is

.. math::
    g &= \mathrm{clip}\bigl(\tfrac{s}{4} (\partial_x + \partial_y) (R(x_0) + R(y_0)), -c, c\bigr), \\
    v &\leftarrow \mu v + g, \qquad
    x_T \leftarrow x_T + v + \epsilon z, \qquad
    x_T \leftarrow \frac{\|x_T^{(0)}\|}{\|x_T\|} x_T

with both chains begun at the same :math:`x_T`, and :math:`\partial_x, \partial_y` in their two beginnings. The norm is kept since
the model has only seen noise of that length.
"""

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.data.stream import PromptBatch
from rlr.models.base import DiffusionModel
from rlr.modules.latents.edict import EDICT
from rlr.modules.sampling import Prediction, Sampling
from rlr.rewards.base import Reward
from rlr.rollout import Objective
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn

TOLERANCE = 1e-2
"""How far the latent that the way back finds may be from the one that was left, in units of its norm."""


class DOODL(Sampling):
    r"""Optimizes the latent of every sample, of images and videos alike; for ``predict`` and ``test``.

    The defaults are those of the published code; its guidance scale is 7.5. Samples do not depend on the batch.

    References:
        | End-to-End Diffusion Latent Optimization Improves Classifier Guidance (Wallace et al., 2023)
        | https://arxiv.org/abs/2303.13703

    Args:
        model: The base model.
        reward: The reward, which must have a gradient.
        steps: The number :math:`T` of steps.
        mixing: EDICT's mixing weight :math:`p`.
        iterations: How often a latent is moved; each time costs :math:`4 T` passes of the network and :math:`2 T` backward.
        scale: The factor :math:`s` on the reward, which acts as a learning rate until clipping takes over.
        clip: The largest change :math:`c` of an element by one gradient.
        momentum: The momentum :math:`\mu`.
        perturbation: The size :math:`\epsilon` of the noise that is added in each iteration.
        seed: Decides all noise; the initial latents are those from which an ``Alignment`` of this seed samples.
    """

    def __init__(
        self,
        model: DiffusionModel,
        reward: Reward,
        steps: int = 50,
        mixing: float = 0.93,
        iterations: int = 50,
        scale: float = 1.0,
        clip: float = 1e-3,
        momentum: float = 0.9,
        perturbation: float = 1e-4,
        seed: int = 0,
    ) -> None:
        if iterations < 0 or not (scale > 0 and clip > 0) or not 0 <= momentum < 1 or perturbation < 0:
            raise ValueError(
                "DOODL: expected iterations >= 0, scale > 0, clip > 0, 0 <= momentum < 1 and perturbation >= 0, found "
                f"{iterations}, {scale}, {clip}, {momentum} and {perturbation}"
            )
        if not reward.differentiable:
            raise ValueError(
                f"DOODL backpropagates the reward, and {reward.label} has no gradient; use a differentiable one"
            )
        reward.check(video=model.size.frames is not None)
        super().__init__(Chain(model, DDIM(steps, eta=0.0)), reward, seed)
        self.edict = EDICT(self.chain, mixing)
        self.iterations, self.scale, self.clip = iterations, scale, clip
        self.momentum, self.perturbation = momentum, perturbation
        self._warned = False

    def _add(self, prediction: Prediction) -> None:
        """Adds the reward of the initial latents, too."""
        super()._add(prediction)
        self._means.add("reward_before", torch.tensor([note["reward_before"] for note in prediction.notes]))

    # inference mode, if the trainer is in it, would forbid gradients of what is made in it
    @torch.inference_mode(False)
    @torch.no_grad()
    def generate(self, batch: PromptBatch) -> Prediction:
        """Samples a batch from optimized latents, and notes the rewards on the way there."""
        prompts, seeds = list(batch.prompts), self.seeds(batch)
        start = self.chain.draw(seeds)[self.chain.steps]
        _, before = self._show(start, prompts)
        x, path = self.optimize(start, prompts, seeds)
        samples, rewards = self._show(x, prompts)
        notes = [
            {"reward_before": before[i].item(), "reward_path": [scores[i].item() for scores in path]}
            for i in range(len(prompts))
        ]
        return Prediction(samples, prompts, list(batch.indices), seeds, rewards, self.chain.model.size.fps, notes)

    def idle(self) -> None:
        self.generate(PromptBatch([""], [0]))

    def optimize(self, x: Tensor, prompts: list[str], seeds: list[int]) -> tuple[Tensor, list[Tensor]]:
        r"""Moves latents up the reward.

        Args:
            x: The initial latents :math:`x_T`, with shape :math:`(B, *)`.
            prompts: The :math:`B` prompts.
            seeds: Decide the perturbations, sample :math:`i`'s ``seeds[i]`` alone.

        Returns:
            The last latents, and the rewards seen in each iteration, each with shape :math:`(B)`.

        Raises:
            FloatingPointError: If a gradient is not finite.
        """
        length, velocity, path = norms(x), torch.zeros_like(x), []
        for k in range(self.iterations):
            gradient, rewards = self.gradient(x, prompts, spawn(self.seed, Stream.ITERATION, k))
            self._check(gradient, k)
            path.append(rewards)
            velocity = self.momentum * velocity + (self.scale * gradient).clamp(-self.clip, self.clip)
            x = x + velocity + self.perturbation * self._noise(x, seeds, k)
            x = x * length / norms(x)
        return x, path

    def gradient(self, x: Tensor, prompts: list[str], seed: int = 0) -> tuple[Tensor, Tensor]:
        r"""Returns :math:`\frac14 (\partial_x + \partial_y) (R(x_0) + R(y_0))` and the rewards of :math:`x_0`.

        Args:
            x: The latents :math:`x_T = y_T`, with shape :math:`(B, *)`.
            prompts: The :math:`B` prompts.
            seed: Decides the frames of videos for a reward that draws some.

        Returns:
            The gradient, with shape :math:`(B, *)`, and the rewards, with shape :math:`(B)`.
        """
        condition, objective = self.chain.encode(prompts), self.objective.of_frames(seed)
        pair = self.edict.sample(torch.stack([x, x]), condition)
        slopes, scores = zip(*(slope(objective, end, prompts) for end in pair), strict=True)
        found, gradient = self.edict.pull_back(pair, torch.stack(slopes) / 2, condition)
        self._check_found(found, x)
        return gradient.mean(0), scores[0]

    def _show(self, x: Tensor, prompts: list[str]) -> tuple[Tensor, Tensor]:
        """Returns the samples of latents, and their rewards."""
        end, _ = self.edict.sample(torch.stack([x, x]), self.chain.encode(prompts))
        samples = self.chain.model.decode(end)
        return samples, self.objective.rate(samples, prompts).values

    def _noise(self, x: Tensor, seeds: list[int], k: int) -> Tensor:
        shape = tuple(x.shape[1:])
        noises = [
            torch.randn(shape, generator=torch.Generator().manual_seed(spawn(seed, Stream.RENOISE, k)))
            for seed in seeds
        ]
        return torch.stack(noises).to(x)

    def _check(self, gradient: Tensor, k: int) -> None:
        if not gradient.isfinite().all():
            raise FloatingPointError(
                f"the gradient of the reward {self.reward.label} in the latent is not finite in iteration "
                f"{k + 1} of {self.iterations}; load the model with dtype: float32 or bfloat16, or set scale lower"
            )

    def _check_found(self, found: Tensor, x: Tensor) -> None:
        """Warns once if the states of the inversion are not those of the sampling."""
        error = max((norms(end - x) / norms(x)).max().item() for end in found)
        if self._warned or error <= TOLERANCE:
            return
        self._warned = True
        warnings.warn(
            f"the way back through {self.chain.steps} steps ends {error:.2g} times its norm beside the latent that it began "
            f"at, so DOODL's gradients are wrong; set mixing (now {self.edict.mixing:g}) closer to 1, or fewer steps",
            stacklevel=2,
        )

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Refuses: there is no state."""
        raise ValueError("DOODL trains no weight, so it has no checkpoint to load; leave out --ckpt_path")


def slope(objective: Objective, x: Tensor, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    r"""Returns :math:`\partial R / \partial x`, with the shape of ``x``, and :math:`R(x)`, with shape :math:`(B)`."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        scores = objective(x, prompts)
        (gradient,) = torch.autograd.grad(scores.objective.sum(), x)
    return gradient, scores.values.detach()


def norms(x: Tensor) -> Tensor:
    r"""Returns the norm of each sample, with shape :math:`(B, 1, \dots)`."""
    return torch.linalg.vector_norm(x, dim=tuple(range(1, x.ndim)), keepdim=True)
