"""Comparisons of methods under the same conditions, for every reward and seed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from experiments.base import Experiment, Row, Run
from experiments.methods import Method, Target
from experiments.paper.cost import costs
from experiments.paper.tuning import RateSelection
from experiments.settings import Setting
from experiments.training import Training

START, CURVE, SAMPLES, SECONDS = "start", "curve", "samples", "seconds"
"""The point at which a row is measured: base model, during training, equal samples, equal seconds."""


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
        reference: The method whose seconds define the budget of a comparison at equal seconds; None for no such comparison.
    """

    models: Mapping[str, Sequence[Method]]
    targets: Sequence[Target]
    evaluation: str
    samples: int
    every: int
    rates: Callable[[Setting], RateSelection]
    reference: Method | None = None

    def budgets(self, method: Method, cost: Mapping[str, float]) -> dict[int, str]:
        """Returns the numbers of updates after which to evaluate, each with the name of the point.

        Args:
            method: The method.
            cost: The seconds of an update of each method, for a comparison at equal seconds.
        """
        marks = {method.updates(samples): CURVE for samples in range(self.every, self.samples, self.every)}
        equal = method.updates(self.samples)
        ends = {equal: SAMPLES}
        if self.reference is not None:
            timed = method.updates_in(self.seconds(cost), cost[method.name])
            # the curve of a longer run continues to its end
            further = range(method.updates(self.every), timed, method.updates(self.every))
            marks.update(dict.fromkeys(further, CURVE))
            ends[timed] = f"{ends[timed]} {SECONDS}" if timed in ends else SECONDS
        return dict(sorted({**marks, **ends}.items()))

    def seconds(self, cost: Mapping[str, float]) -> float:
        """Returns the seconds of each method in a comparison at equal seconds.

        Args:
            cost: The seconds of an update of each method.
        """
        assert self.reference is not None
        return self.reference.updates(self.samples) * cost[self.reference.name]


class Comparison(Experiment):
    """Runs of every method, reward and seed."""

    plans: ClassVar[Mapping[str, Plan]]
    """By the name of the setting."""

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.name not in self.plans:
            raise ValueError(f"{self.name} has no setting {setting.name}; choose from {', '.join(self.plans)}")
        return list(self._runs(setting, self.plans[setting.name], seeds))

    def _runs(self, setting: Setting, plan: Plan, seeds: Sequence[int]) -> Iterator[Run]:
        choice, cost = plan.rates(setting), costs(setting) if plan.reference else {}
        for seed in seeds:
            for model, methods in plan.models.items():
                for target in plan.targets:
                    for method in methods:
                        key: dict[str, str | int] = {"model": model, "reward": target.name, "method": method.name}
                        budgets = plan.budgets(method, cost)
                        run = Training(
                            choice(method).with_reward(target),
                            method.evaluation or plan.evaluation,
                            seed,
                            tuple(budgets),
                        )
                        yield marked(
                            run.as_run(setting, self.source or self.name, {**key, "seed": seed}), budgets, target
                        )


def marked(run: Run, budgets: Mapping[int, str], target: Target) -> Run:
    """Returns the run with additional columns: the point of the measurement and the reward of the training."""

    def measure() -> list[Row]:
        rows: list[Row] = []
        for row in run.measure():
            marks: Row = {"at": {0: START, **budgets}[int(float(row["update"]))], "proxy": row[target.label]}
            gains: Row = {"proxy gain": row[f"{target.label} gain"]} if f"{target.label} gain" in row else {}
            rows.append({**marks, **gains, **row})
        return rows

    return Run(run.key, run.command, measure)


def at(rows: Sequence[Row], mark: str) -> list[Row]:
    """Returns the rows that are measured at a point."""
    return [row for row in rows if mark in str(row.get("at", "")).split()]
