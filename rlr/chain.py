r"""The denoising chain :math:`x_T \to \dots \to x_0`: recorded once without gradient, then replayed with gradient."""

from collections.abc import Callable, Container, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor, nn

from rlr import storage
from rlr.gaussian import Gaussian
from rlr.microbatch import passed
from rlr.models.base import Condition, DiffusionModel
from rlr.models.staged import encode, join
from rlr.samplers import Sampler
from rlr.schedules import Grid
from rlr.storage import Latents, Storage

Within = Callable[[int], AbstractContextManager[object]]
"""Returns the context in which the model is evaluated in step :math:`t`, such as shifted weights."""


def unchanged(t: int) -> AbstractContextManager[object]:
    """Returns a context that changes nothing, the default of a step."""
    return nullcontext()


Observe = Callable[[int, Gaussian, Tensor], None]
"""Called in step :math:`t` of a rollout with its transition and the state that was drawn from it."""


def unobserved(t: int, transition: Gaussian, x: Tensor) -> None:
    """Does nothing, the default in a step."""


@dataclass(frozen=True)
class Trajectory:
    r"""The recorded states and noises of a batch.

    Args:
        condition: The encoded prompts.
        states: The states, ``states[t]`` :math:`= x_t`, with shape :math:`(T + 1, B, *)`.
        noises: The noises, with shape :math:`(T + 1, B, *)`; ``noises[t]`` was used to sample :math:`x_t`, and ``noises[T]``
            is :math:`x_T`.
    """

    condition: Condition
    states: Latents
    noises: Latents

    def select(self, rows: Tensor) -> Self:
        """Returns some of the samples, given by their numbers in the batch."""
        condition = self.condition.map(lambda c: c[rows.to(c.device)])
        states, noises = (storage.select(latents, rows) for latents in (self.states, self.noises))
        return replace(self, condition=condition, states=states, noises=noises)

    @classmethod
    def join(cls, trajectories: Sequence[Self], condition: Condition) -> Self:
        """Returns several trajectories as one, with the given joined condition."""
        first = trajectories[0]
        states, noises = (storage.join([getattr(t, name) for t in trajectories]) for name in ("states", "noises"))
        return replace(first, condition=condition, states=states, noises=noises)


@dataclass(frozen=True)
class Evaluation:
    r"""The network evaluated in a recorded state. A replay can start from it, so that one evaluation serves two purposes.

    Args:
        t: The step :math:`t`.
        x: The state :math:`x_t`, a leaf that requires a gradient.
        denoised: The estimate :math:`\hat x_0(x_t)`, with a graph in the state and in the weights.
    """

    t: int
    x: Tensor
    denoised: Tensor


class Chain(nn.Module):
    r"""A base model with a sampler: a policy in which every action is one denoising step.

    Args:
        model: The base model.
        sampler: The sampler.
        checkpoint: Whether replayed steps keep only their input and are computed again in the backward pass, so that a replay
            of :math:`k` steps keeps the graph of one step in memory.
        storage: How the states and noises of rollouts are kept.
        micro_batch: The most samples that pass the network at once; None for all of a batch. See :mod:`rlr.microbatch`.
    """

    def __init__(
        self,
        model: DiffusionModel,
        sampler: Sampler,
        checkpoint: bool = False,
        storage: Storage = Storage(),  # noqa: B008 - frozen
        micro_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.sampler = sampler
        self.checkpoint = checkpoint
        self.storage = storage
        self.micro_batch = micro_batch

    @property
    def steps(self) -> int:
        r"""The number :math:`T` of steps of the grid, which may be larger than the sampler's."""
        return self.grid.steps

    @cached_property
    def grid(self) -> Grid:
        """The noise levels of the chain."""
        return self.model.schedule(self.model.size).grid(self.sampler.steps)

    @property
    def noisy_steps(self) -> list[int]:
        r"""The steps with :math:`\sigma_t > 0`, the last one of the chain first: some of :math:`1, \dots, T`."""
        return [t for t in range(1, self.steps + 1) if self.std(t) > 0]

    def in_round(self, rounds: int, seed: int) -> "Chain":
        """Returns the chain of the rollouts of a round, of the same model; see :meth:`~rlr.samplers.Sampler.in_round`."""
        sampler = self.sampler.in_round(rounds, seed)
        return self if sampler is self.sampler else self.with_sampler(sampler)

    def with_sampler(self, sampler: Sampler) -> "Chain":
        """Returns the chain of the same model with another sampler."""
        return Chain(self.model, sampler, self.checkpoint, self.storage, self.micro_batch)

    def unrounded(self) -> "Chain":
        """Returns the chain that samples without rounding its states, of the same model."""
        if not self.storage.bfloat16:
            return self
        exact = replace(self.storage, bfloat16=False)
        return Chain(self.model, self.sampler, self.checkpoint, exact, self.micro_batch)

    def std(self, t: int) -> float:
        r"""Returns the standard deviation of step :math:`t`, :math:`p(x_{t-1} \mid x_t)`."""
        return self.sampler.std(t, self.grid)

    def encode(self, prompts: Sequence[str]) -> Condition:
        r"""Returns the condition of :math:`B` prompts; the condition of a staged prompt changes with the step."""
        return encode(self.model, prompts, self.steps)

    def join(self, conditions: Sequence[Condition]) -> Condition:
        """Returns the conditions of several batches as one."""
        return join(conditions, self.steps)

    def denoise(self, x: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns :math:`\hat x_0(x_t)`, with the shape of ``x``."""
        return self._pass(x, t, condition)

    def denoise_recomputed(self, x: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns :math:`\hat x_0(x_t)` with gradient; with ``checkpoint`` its graph keeps only the state."""
        return self._pass(x, t, condition, self.checkpoint)

    def _pass(self, x: Tensor, t: int, condition: Condition, recompute: bool = False) -> Tensor:
        def function(x: Tensor, condition: Condition) -> Tensor:
            return self.model.denoise(x, self.grid.times[t], condition)

        return passed(function, x, condition.at(t), self.micro_batch, recompute)

    def skipped(self, x: Tensor, t: int, inside: Tensor | None = None) -> Tensor:
        r"""Returns :math:`a_t (x - \lfloor x \rfloor)`, a zero with the gradient that :math:`\hat x_0` passes around the network.

        In :math:`\hat x_0 = a_t x_t + b_t F(x_t)` it is the gradient at a constant output :math:`F`.

        Args:
            x: The state :math:`x_t`, with shape :math:`(B, *)`.
            t: The step :math:`t`.
            inside: What takes the place of :math:`\lfloor x \rfloor`: a tensor of the value of ``x``, through which a part of the
                gradient is passed elsewhere; by default the constant ``x.detach()``.
        """
        return self.model.skip(self.grid.times[t]) * (x - (x.detach() if inside is None else inside))

    def leap(self, denoised: Tensor, x: Tensor, t: int, s: int) -> Tensor:
        r"""Returns the state :math:`x_s` that follows from :math:`x_t` in one deterministic step.

        .. math:: \hat x_{s|t} = \alpha_s \hat x_0 + \sigma_s \hat z, \qquad
            \hat z = \frac{x_t - \alpha_t \hat x_0}{\sigma_t}

        On a rectified flow this is :math:`x_t - (\sigma_t - \sigma_s) v`.

        Args:
            denoised: The estimate :math:`\hat x_0(x_t)`, with shape :math:`(B, *)`.
            x: The state :math:`x_t`, with shape :math:`(B, *)`.
            t: The number of the state, :math:`t \geq 1`.
            s: The number of the predicted state, :math:`s \geq 0`.
        """
        noise = (x - self.grid.alphas[t] * denoised) / self.grid.sigmas[t]
        return self.grid.alphas[s] * denoised + self.grid.sigmas[s] * noise

    def transition(self, x: Tensor, t: int, condition: Condition) -> Gaussian:
        r"""Returns :math:`p_\theta(x_{t-1} \mid x_t)` for ``x`` :math:`= x_t`."""
        return self.sampler.transition(self.denoise(x, t, condition), x, t, self.grid)

    def draw(self, seeds: Sequence[int]) -> Tensor:
        r"""Draws the noises of :math:`B` samples, those of sample :math:`i` from ``seeds[i]`` alone.

        A sample therefore does not depend on its batch, rank or device.

        Returns:
            Standard normal noises on the model's device, or where the storage keeps them, with shape :math:`(T + 1, B, *)`, of the
            default type but at least float32, and so are the states of the chain.
        """
        shape = (self.steps + 1, *self.model.latent_shape(self.model.size))
        # in a training step in bf16-true the default is bfloat16
        dtype = torch.promote_types(torch.get_default_dtype(), torch.float32)
        noises = [torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) for seed in seeds]
        return torch.stack(noises, 1).to(self.storage.place(self.model.device))

    @torch.no_grad()
    def sample(
        self, condition: Condition, noises: Latents, within: Within = unchanged, observe: Observe = unobserved
    ) -> Trajectory:
        r"""Samples the chain on given noises and records it, without gradient.

        Args:
            condition: The encoded prompts.
            noises: The noises, with shape :math:`(T + 1, B, *)`; ``noises[T]`` is :math:`x_T`.
            within: The context of each step, such as shifted weights.
            observe: Called in each step.
        """
        device = self.model.device
        noises = self.storage.keep(noises, device)
        states = self.storage.room(noises.shape, noises.dtype, device)
        states[self.steps] = noises[self.steps]
        for t in range(self.steps, 0, -1):
            with within(t):
                transition = self.transition(states[t], t, condition)
            states[t - 1] = transition.sample(noises[t - 1])
            observe(t, transition, states[t - 1])
        return Trajectory(condition, states, noises)

    def evaluate(self, trajectory: Trajectory, t: int) -> Evaluation:
        r"""Evaluates the network in the recorded state :math:`x_t`, with a gradient in the state and in the weights."""
        with torch.enable_grad():
            x = trajectory.states[t].detach().requires_grad_()
            return Evaluation(t, x, self.denoise_recomputed(x, t, trajectory.condition))

    def replay(
        self,
        trajectory: Trajectory,
        start: int,
        stop: int,
        stop_grad_steps: Container[int] = (),
        first: Evaluation | None = None,
    ) -> Gaussian:
        r"""Replays :math:`x_\mathrm{start} \to x_\mathrm{stop}` with gradient, on the recorded noises.

        Args:
            trajectory: The recorded trajectory; ``states[start]`` is a constant.
            start: The first state of the segment.
            stop: The last state, :math:`0 \leq` ``stop`` :math:`<` ``start`` :math:`\leq T`.
            stop_grad_steps: Steps whose network output is a constant: they have no graph of the model, and the gradient through
                them is only that of the latent's own path, see :meth:`~rlr.models.DiffusionModel.skip`.
            first: The evaluation of the network in :math:`x_\mathrm{start}`, where it is known.

        Returns:
            The last transition, :math:`p_\theta(x_\mathrm{stop} \mid \cdot)`. Its ``sample`` of the recorded noise
            gives the pathwise gradient of the segment, its ``log_prob`` of the recorded state the likelihood ratio.
        """
        x, condition = trajectory.states[start], trajectory.condition
        if first is not None:
            transition = self.sampler.transition(first.denoised, first.x, start, self.grid)
        else:
            transition = self._replayed(x, start, condition, stop_grad_steps)
        for t in range(start - 1, stop, -1):
            x = self.storage.rounded(transition.sample(trajectory.noises[t]))
            transition = self._replayed(x, t, condition, stop_grad_steps)
        return transition

    def _replayed(self, x: Tensor, t: int, condition: Condition, stop_grad_steps: Container[int]) -> Gaussian:
        return self._stop_grad(x, t, condition) if t in stop_grad_steps else self._step(x, t, condition)

    def _stop_grad(self, x: Tensor, t: int, condition: Condition) -> Gaussian:
        with torch.no_grad():
            denoised = self.denoise(x, t, condition)
        if x.requires_grad:
            denoised = denoised + self.skipped(x, t)
        return self.sampler.transition(denoised, x, t, self.grid)

    def _step(self, x: Tensor, t: int, condition: Condition) -> Gaussian:
        return self.sampler.transition(self.denoise_recomputed(x, t, condition), x, t, self.grid)

    def look_ahead(self, x: Tensor, t: int, condition: Condition) -> Tensor:
        r"""Returns the one-step prediction :math:`\hat x_0(x_t)` of the final latent, with the shape of ``x``.

        For :math:`t = 0` the state is the final latent itself. Differentiable in ``x``.
        """
        return x if t == 0 else self.denoise(x, t, condition)

    def refine(self, denoised: Tensor, x: Tensor, t: int, condition: Condition, steps: int = 1) -> Tensor:
        r"""Returns a prediction of the final latent by :math:`n` deterministic steps, the first of which is known.

        The :math:`n` steps go from :math:`t` to 0 in parts of nearly equal length. Each is a :meth:`leap`, as of DDIM with
        :math:`\eta = 0`. With gradient the graph has the :math:`n - 1` passes of all further steps; with ``checkpoint`` it keeps
        their states alone, and each pass is made again in the backward pass.

        Args:
            denoised: The estimate :math:`\hat x_0(x_t)`, with shape :math:`(B, *)`; with :math:`n = 1` it is the prediction.
            x: The state :math:`x_t`, with shape :math:`(B, *)`.
            t: The step :math:`t \geq 1`.
            condition: The encoded prompts.
            steps: The number :math:`n \geq 1` of steps; at most :math:`t` of them are made.
        """
        n = min(steps, t)
        for s in [round(t * (n - i) / n) for i in range(1, n)]:
            x, t = self.leap(denoised, x, t, s), s
            denoised = self.denoise_recomputed(x, t, condition)
        return denoised
