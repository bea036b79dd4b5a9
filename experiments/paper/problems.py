"""The problems of Table 1, with their reference gradients."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from rlr.analysis.accuracy import Reference, deep, draw_reference
from rlr.analysis.linear import exact_gradients, linear_chain, quadratic
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.io.weights import save_whole
from rlr.objective import Objective
from rlr.rewards import Reward
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn
from rlr.toy.models import Tiny
from rlr.toy.world.prompts import training_prompts


class ReferenceProblem(ABC):
    r"""A problem whose gradient is known, exactly or with a small error.

    Args:
        steps: The number :math:`T` of steps of the chain.
        batch: The number :math:`B` of samples of an estimate.
        draws: The number of estimates of each estimator.
        eta: The :math:`\eta` of the chain.
    """

    name: str
    title: str

    def __init__(self, steps: int, batch: int, draws: int, eta: float = 1.0) -> None:
        self.steps, self.batch, self.draws, self.eta = steps, batch, draws, eta

    @property
    def command(self) -> str:
        """The command of the rows."""
        return self.settings

    @property
    def settings(self) -> str:
        """The settings as text."""
        return f"{self.title}, DDIM, T = {self.steps}, eta = {self.eta:g}, batch {self.batch}, {self.draws} draws"

    @property
    def seeds(self) -> list[int]:
        """The seeds of the estimates."""
        return [spawn(0, Stream.EXPERIMENT, k) for k in range(self.draws)]

    @cached_property
    @abstractmethod
    def problem(self) -> Problem:
        """The problem."""

    @cached_property
    @abstractmethod
    def reference(self) -> Reference:
        """The gradient of the problem."""


class Linear(ReferenceProblem):
    """The affine model, whose gradient is exact."""

    name = "linear"
    title = "affine model of two dimensions, quadratic reward"

    @cached_property
    def problem(self) -> Problem:
        return Problem(
            linear_chain(self.steps, DDIM(self.steps, self.eta)), unconditional(quadratic), ["x"] * self.batch
        )

    @cached_property
    def reference(self) -> Reference:
        each = exact_gradients(self.problem.chain)
        return Reference.exact(each.sum(0), each[deep(self.steps) :].sum(0))


class Images(ReferenceProblem):
    r"""The built-in image model with fresh LoRA weights; the gradient is a mean of draws.

    Args:
        name: The name of the problem.
        reward: The reward.
        steps: The number :math:`T` of steps.
        batch: The number :math:`B` of samples of an estimate, each with its own prompt.
        draws: The number of estimates of each estimator.
        full: The number of gradients of full backpropagation whose mean is the reference.
        folder: The folder that caches these gradients.
        eta: The :math:`\eta` of the chain.
    """

    def __init__(
        self,
        name: str,
        reward: type[Reward],
        steps: int,
        batch: int,
        draws: int,
        full: int,
        folder: Path,
        eta: float = 1.0,
    ) -> None:
        super().__init__(steps, batch, draws, eta)
        self.name, self.reward, self.full, self.folder = name, reward, full, folder
        self.title = f"Tiny with LoRA of rank 4 before any update, no guidance, {reward.__name__}"

    @property
    def command(self) -> str:
        return f"{self.settings}, reference of {self.full} full gradients"

    @cached_property
    def problem(self) -> Problem:
        chain = Chain(Tiny(), DDIM(self.steps, self.eta)).eval()
        prompts: Sequence[str] = training_prompts(self.batch, 0)
        return Problem(chain, Objective(chain.model, self.reward()).of_frames(), prompts)

    @cached_property
    def reference(self) -> Reference:
        # files without an eta in their name have eta 1
        eta = "" if self.eta == 1 else f"_eta{self.eta:g}"
        path = self.folder / f"table1_{self.name}_T{self.steps}{eta}_B{self.batch}_N{self.full}.pt"
        if not path.is_file():
            drawn = draw_reference(self.problem, self.reference_seeds(self.full))
            save_whole(path, torch.stack(drawn))
        return Reference.drawn(*torch.load(path, weights_only=True))

    @staticmethod
    def reference_seeds(count: int) -> list[int]:
        """Returns the seeds of the reference."""
        return [spawn(0, Stream.REFERENCE, k) for k in range(count)]
