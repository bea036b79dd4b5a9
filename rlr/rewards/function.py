"""Any function of images and prompts as a reward."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from rlr.rewards.base import Reward, as_scores

PROMPTS = ("a photo of a cat", "a photo of a dog")
"""The prompts of the trial, unless others are given."""


class FunctionReward(Reward):
    r"""The reward that a function computes.

    Whether the function has a gradient is found by one trial: it is called with noise, and its scores are
    differentiated. It has one if the gradient exists and is not zero in every pixel. A function that refuses pixels with
    ``requires_grad``, as one of NumPy does, is called without, and a message states why.

    Args:
        function: Takes pixels in [0, 1] with shape :math:`(B, 3, H, W)`, or :math:`(B, F, 3, H, W)` of videos, and
            :math:`B` prompts. Returns :math:`B` scores as a tensor, a NumPy array, or a list of numbers. A network is
            frozen and moved to the device of the training.
        label: What to call the score in tables and logs; by default the function's name.
        higher_is_better: Whether training raises the score.
        differentiable: Whether the scores have a gradient in the pixels; by default the trial decides.
        shape: The shape of one sample of the trial.
        prompts: The two prompts of the trial.

    Raises:
        ValueError: If the function fails in the trial, or does not return one number a sample.
    """

    supports_video = True

    def __init__(
        self,
        function: Callable[[Tensor, Sequence[str]], Any],
        label: str | None = None,
        higher_is_better: bool = True,
        differentiable: bool | None = None,
        shape: Sequence[int] = (3, 64, 64),
        prompts: Sequence[str] = PROMPTS,
    ) -> None:
        super().__init__()
        self.function = function
        self.name = _name(function)
        self.higher_is_better = higher_is_better
        self._label = label or self.name.rpartition(".")[2].replace("<lambda>", "FunctionReward")
        self.train()
        self.differentiable = self._try(shape, prompts) if differentiable is None else differentiable

    @property
    def label(self) -> str:
        """The given name, or that of the function."""
        return self._label

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        if self.differentiable:
            return self._scores(samples, prompts)
        with torch.no_grad():
            return self._scores(samples.detach(), prompts)

    def _scores(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return as_scores(self.function(samples, list(prompts)), prompts, self.name)

    def _try(self, shape: Sequence[int], prompts: Sequence[str]) -> bool:
        """Returns whether the function has a gradient, found on the first device on which it runs."""
        noise = torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))
        texts = [prompts[k % len(prompts)] for k in range(2)]
        failed = Exception()
        # the function is not ours and may raise anything
        with torch.random.fork_rng(devices=[]):
            for device in _devices(self.function):
                pixels = noise.to(device)
                try:
                    return self._has_gradient(pixels, texts)
                except Exception as error:
                    refused = error
                try:
                    self._run_without_gradient(pixels, texts)
                except Exception as error:
                    failed = error
                else:
                    self._report_no_gradient(refused)
                    return False
        raise self._failed(failed, noise.shape, texts)

    @torch.enable_grad()
    def _has_gradient(self, noise: Tensor, prompts: Sequence[str]) -> bool:
        leaf = noise.requires_grad_()
        # the function may work in place, which autograd does not allow on a leaf
        scores = self._scores(leaf.clone(), prompts)
        if not scores.requires_grad:
            return False
        (slope,) = torch.autograd.grad(scores.sum(), leaf, allow_unused=True)
        return slope is not None and bool((slope != 0).any())

    @torch.no_grad()
    def _run_without_gradient(self, noise: Tensor, prompts: Sequence[str]) -> None:
        self._scores(noise.detach(), prompts)

    def _report_no_gradient(self, error: Exception) -> None:
        # usual for a function of NumPy; a mistake in a function of torch would otherwise be lost
        rank_zero_warn(
            f"the reward {self.name} has no gradient: with pixels that require one it raises {type(error).__name__}: {error}; "
            "state differentiable=False if that is meant"
        )

    def _failed(self, error: Exception, shape: Sequence[int], prompts: Sequence[str]) -> Exception:
        if isinstance(error, ValueError) and str(error).startswith(f"the reward {self.name}: "):
            return error
        failure = ValueError(
            f"the reward {self.name}: expected scores of pixels of shape {tuple(shape)} and the prompts {list(prompts)}, got "
            f"{type(error).__name__}: {error}; correct the function, or state differentiable, which leaves out this trial"
        )
        failure.__cause__ = error
        return failure


def _name(function: Callable[..., Any]) -> str:
    """Returns what messages call a function: its module and name, or the class of a callable object."""
    if isinstance(function, partial):
        return _name(function.func)
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}".removeprefix("__main__.").replace("<locals>.", "")


def _devices(function: Callable[..., Any]) -> Iterator[torch.device]:
    """Yields the devices on which a function may run: that of a network's weights, or the accelerator and then the CPU."""
    weight = next(function.parameters(), None) if isinstance(function, nn.Module) else None
    if weight is not None:
        yield weight.device
        return
    if torch.accelerator.is_available():
        yield torch.device(torch.accelerator.current_accelerator() or "cpu")
    yield torch.device("cpu")
