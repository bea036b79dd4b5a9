"""The tails of backpropagated gradients by the depth of backpropagation, where Table 1 has no reference."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.paper.problems import Images
from experiments.settings import TINY, Setting
from experiments.summary import grouped
from rlr.analysis.accuracy import Sample
from rlr.estimators import FirstOrder
from rlr.rewards import Brightness, Reward
from rlr.toy.rewards import TinyPickScore

STEPS, BATCH, DRAWS = 5, 8, 64
DEPTHS = (1, 2, 3, 5)
REWARDS: tuple[type[Reward], ...] = (Brightness, TinyPickScore)
SHARES = {"median": 0.5, "ninth": 0.9, "most": 1.0}
"""The reported quantiles."""


@dataclass(frozen=True)
class DepthMeasurement:
    """Gradients of backpropagation through the last steps.

    Args:
        problem: The problem, with fresh noises in each draw.
        depth: The number of steps.
    """

    problem: Images
    depth: int

    def rows(self) -> list[Row]:
        """Returns the statistics of the gradients."""
        estimator = FirstOrder(self.depth)
        return [gradient_statistics(self.problem.problem.gradients(estimator, self.problem.seeds))]


def gradient_statistics(draws: Tensor) -> Row:
    r"""Returns quantiles of the norms of :math:`n` draws with shape :math:`(n, d)`, and the mean cosine of two draws.

    The cosine has a jackknife standard error.
    """
    norms = draws.double().norm(dim=1)
    directions = draws.double() / norms[:, None]
    found: Row = {name: norms.quantile(share).item() for name, share in SHARES.items()}
    return {**found, "cosine": Sample(directions).square.item(), "cosine_error": jackknife(directions)}


def jackknife(directions: Tensor) -> float:
    """Returns the standard error of the mean cosine, from leaving out each direction in turn."""
    n = len(directions)
    kept = ~torch.eye(n, dtype=torch.bool)
    left = torch.stack([Sample(directions[kept[i]]).square for i in range(n)])
    return ((n - 1) / n * (left - left.mean()).square().sum()).sqrt().item()


class Tails(Experiment):
    """Norms and cosines of single gradients of first order, by depth and reward."""

    name = "tails"
    title = "The tails of backpropagated gradients"
    note = (
        f"Norms of {DRAWS} gradients of backpropagation through the last steps of {STEPS}, each a mean over {BATCH} samples of the "
        "same prompts with its own noises, and the mean cosine between two gradients ± a jackknife standard error. If the mean "
        "gradient is as long as the median norm, the cosine is near 1. If the largest norm is many times the median and the "
        "cosine is near 0, this number of draws cannot distinguish the mean from zero, and full backpropagation is not a "
        "reference for Table 1."
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs; the seeds have no effect, because the draws have their own."""
        if setting.gpu:
            raise ValueError(
                f"tails are measured for the setting {TINY.name} alone, in which hundreds of full gradients are cheap"
            )
        # 0 full gradients: this experiment needs no reference
        problems = [Images(reward.__name__, reward, STEPS, BATCH, DRAWS, 0, setting.runs) for reward in REWARDS]
        return [_run(problem, depth) for problem in problems for depth in DEPTHS]

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        head = ("steps", "median norm", "nine in ten below", "largest", "cosine of two")
        return [
            Table(str(reward), head, [_line(row) for row in group])
            for (reward,), group in grouped(rows, "reward").items()
        ]


def _run(problem: Images, depth: int) -> Run:
    command = f"{problem.settings} of FirstOrder({depth})"
    return Run({"reward": problem.name, "depth": depth}, command, DepthMeasurement(problem, depth).rows)


def _line(row: Row) -> tuple[str, ...]:
    median, ninth, most, mean, error = (float(row[k]) for k in (*SHARES, "cosine", "cosine_error"))
    return f"{float(row['depth']):g}", f"{median:.3g}", f"{ninth:.3g}", f"{most:.3g}", f"{mean:.3f} ± {error:.3f}"
