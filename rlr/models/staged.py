r"""Staged prompts, the diffusive chain of thought: another prompt for each group of steps, from coarse to fine.

A chain decides the large before the small. So the prompt of the first steps describes the layout, that of the last
steps the texture, and each step reads the prompt of its own group.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from torch import Tensor

from rlr.io.text import quote
from rlr.models.base import Condition, DiffusionModel

ROUNDING = 1e-9
"""Allowed for in fractions of a chain: a third of 6 steps ends after 2 of them."""


class StagedPrompt(str):
    r"""A prompt in :math:`S` stages. As a string it is the whole prompt, which rewards and tables read.

    References:
        | Zeroth-order Informed Fine-Tuning for Diffusion Model: A Recursive Likelihood Ratio Optimizer (Ren et al., 2025)
        | https://arxiv.org/abs/2502.00639

    Args:
        prompt: The whole prompt.
        stages: The prompts of the :math:`S` groups of steps, the first steps' first.
        starts: The shares of the chain after which stages 2, …, S begin: increasing, in (0, 1); by default
            :math:`1/S, 2/S, \dots`

    Raises:
        ValueError: If a stage is blank, or the starts do not fit the stages.
    """

    stages: tuple[str, ...]
    starts: tuple[float, ...]

    def __new__(cls, prompt: str, stages: Sequence[str], starts: Sequence[float] | None = None) -> "StagedPrompt":
        """Makes a string of the prompt, with its stages beside it."""
        self = super().__new__(cls, prompt)
        self.stages = tuple(stages)
        self.starts = tuple(i / len(stages) for i in range(1, len(stages))) if starts is None else tuple(starts)
        self._check()
        return self

    def _check(self) -> None:
        if not self.stages or not all(stage.strip() for stage in self.stages):
            raise ValueError(
                f"the stages of the prompt {quote(self)} are {self.stages}; write at least one, none blank"
            )
        rising = all(a < b for a, b in pairwise((0.0, *self.starts, 1.0)))
        if len(self.starts) != len(self.stages) - 1 or not rising:
            raise ValueError(
                f"{len(self.stages)} stages need {len(self.stages) - 1} starts that increase within (0, 1), and "
                f"{list(self.starts)} were given for the prompt {quote(self)}"
            )

    def stage(self, t: int, steps: int) -> int:
        r"""Returns which stage step :math:`t` of a chain of :math:`T` = ``steps`` belongs to, counted from 0."""
        return bisect_right(self.starts, (steps - t) / steps + ROUNDING)

    def at(self, t: int, steps: int) -> str:
        r"""Returns the prompt of step :math:`t`."""
        return self.stages[self.stage(t, steps)]

    def __repr__(self) -> str:
        return f"StagedPrompt({str(self)!r}, {self.stages!r}, {self.starts!r})"

    def __getnewargs__(self) -> tuple[str, tuple[str, ...], tuple[float, ...]]:  # type: ignore[override]
        return str(self), self.stages, self.starts


@dataclass(frozen=True)
class StagedCondition(Condition):
    r"""A condition that changes with the step; it has no tensors of its own.

    Args:
        steps: The condition of each step :math:`t = 1, \dots, T`; those of one stage are one object.
    """

    steps: Mapping[int, Condition] = field(default_factory=dict)

    def at(self, t: int) -> Condition:
        return self.steps[t]

    def map(self, function: Callable[[Tensor], Tensor]) -> "StagedCondition":
        distinct = {id(condition): condition for condition in self.steps.values()}
        mapped = {key: condition.map(function) for key, condition in distinct.items()}
        return StagedCondition({}, {t: mapped[id(condition)] for t, condition in self.steps.items()})


def encode(model: DiffusionModel, prompts: Sequence[str], steps: int) -> Condition:
    r"""Returns the condition of :math:`B` prompts for a chain of :math:`T` = ``steps``, some or all of them staged.

    Each stage is encoded once. A prompt that is not staged is the same in all steps.

    Raises:
        ValueError: If a stage has no step.
    """
    staged = [prompt for prompt in prompts if isinstance(prompt, StagedPrompt)]
    if not staged:
        return model.encode(prompts)
    for prompt in staged:
        _check_steps(prompt, steps)
    lines = {t: tuple(_at(prompt, t, steps) for prompt in prompts) for t in range(1, steps + 1)}
    conditions = {line: model.encode(list(line)) for line in dict.fromkeys(lines.values())}
    return StagedCondition({}, {t: conditions[line] for t, line in lines.items()})


def join(conditions: Sequence[Condition], steps: int) -> Condition:
    r"""Returns the conditions of several batches of a chain of :math:`T` = ``steps`` as one."""
    if not any(isinstance(condition, StagedCondition) for condition in conditions):
        return Condition.join(conditions)
    each = {t: tuple(condition.at(t) for condition in conditions) for t in range(1, steps + 1)}
    # the steps of one stage share one condition
    joined = {tuple(map(id, parts)): Condition.join(parts) for parts in each.values()}
    return StagedCondition({}, {t: joined[tuple(map(id, parts))] for t, parts in each.items()})


def _at(prompt: str, t: int, steps: int) -> str:
    return prompt.at(t, steps) if isinstance(prompt, StagedPrompt) else prompt


def _check_steps(prompt: StagedPrompt, steps: int) -> None:
    missing = set(range(len(prompt.stages))) - {prompt.stage(t, steps) for t in range(1, steps + 1)}
    if missing:
        raise ValueError(
            f"stage {min(missing) + 1} of the prompt {quote(prompt)} has no step in a chain of {steps} with starts "
            f"{list(prompt.starts)}; raise the sampler's steps, or set other starts"
        )
