"""Comparisons of methods under the same conditions, for every reward and seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from experiments.base import Experiment, Row, Run
from experiments.board.board import BoardA
from experiments.marks import CURVE, SAMPLES, marked
from experiments.methods import Method, Target
from experiments.paper.rates import RateSelection
from experiments.settings import TINY, Setting
from experiments.training import Training


@dataclass(frozen=True)
class Plan:
    """The comparison at a setting.

    Args:
        models: The methods by the name of the trained model.
        targets: The rewards of the training.
        evaluation: The config of the evaluation.
        samples: The number of samples for each method.
        every: The number of samples between two points of a curve.
        rates: Sets the learning rates of the methods.
    """

    models: Mapping[str, Sequence[Method]]
    targets: Sequence[Target]
    evaluation: str
    samples: int
    every: int
    rates: Callable[[Setting], RateSelection]

    def budgets(self, method: Method) -> dict[int, str]:
        """Returns the numbers of updates of a method after which to evaluate, each with the name of the point."""
        marks = {method.updates(samples): CURVE for samples in range(self.every, self.samples, self.every)}
        return {**marks, method.updates(self.samples): SAMPLES}


class Comparison(Experiment):
    """Runs of every method, reward and seed."""

    plans: ClassVar[Mapping[str, Plan]]
    """By the name of the setting."""

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.name not in self.plans:
            raise ValueError(f"{self.name} has no setting {setting.name}; choose from {', '.join(self.plans)}")
        return list(self._runs(setting, self.plans[setting.name], seeds))

    def _runs(self, setting: Setting, plan: Plan, seeds: Sequence[int]) -> Iterator[Run]:
        choice = plan.rates(setting)
        for seed in seeds:
            for model, methods in plan.models.items():
                for target in plan.targets:
                    for method in methods:
                        key: dict[str, str | int] = {"model": model, "reward": target.name, "method": method.name}
                        budgets, evaluation = plan.budgets(method), method.evaluation or plan.evaluation
                        run = Training(choice(method).with_reward(target), evaluation, seed, tuple(budgets))
                        as_run = run.as_run(setting, self.source(setting), {**key, "seed": seed})
                        yield marked(as_run, budgets, target)


class BoardComparison(Comparison):
    """A comparison whose runs on the built-in model are runs of the board."""

    board: ClassVar[Sequence[str]]
    """The names of the methods, on track A of the board, in the order of tables and legends."""

    def source(self, setting: Setting) -> str:
        return BoardA.name if setting.name == TINY.name else super().source(setting)

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.name != TINY.name:
            return super().runs(setting, seeds)
        return [run for run in BoardA().runs(setting, seeds) if run.key["method"] in self.board]

    def prepared(self, setting: Setting, rows: Sequence[Row]) -> Sequence[Row]:
        if setting.name != TINY.name:
            return rows
        return sorted(BoardA().prepared(setting, rows), key=lambda row: self.board.index(str(row["method"])))
