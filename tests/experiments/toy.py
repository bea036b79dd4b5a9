"""An experiment that costs nothing and can be made to fail."""

from collections.abc import Sequence
from typing import ClassVar

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.settings import Setting
from experiments.summary import grouped, mean_of


class Toy(Experiment):
    """Ten times the seed, for two methods."""

    name = "toy"
    title = "A <toy>"
    note = "Nothing is measured."
    published = (Table("their numbers", ("method", "value"), [("A", "3.14159")]),)

    factor: ClassVar[int] = 10
    broken: ClassVar[set[str]] = set()
    measured_runs: ClassVar[list[str]] = []

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        return [self._run(method, seed) for seed in seeds for method in ("A", "B")]

    def _run(self, method: str, seed: int) -> Run:
        key: dict[str, str | int] = {"method": method, "seed": seed}
        return Run(key, f"{self.factor} × seed", lambda: self._measure(f"{method}{seed}", seed))

    def _measure(self, title: str, seed: int) -> list[Row]:
        self.measured_runs.append(title)
        if title in self.broken:
            raise RuntimeError(f"{title} is broken")
        return [{"update": float(k), "value": float(self.factor * seed + k)} for k in range(2)]

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        lines = [(str(method), mean_of(group, "value", 1)) for (method,), group in grouped(rows, "method").items()]

        def draw(canvas) -> None:
            canvas.subplots().plot([row["value"] for row in rows])

        return [Table("Means", ("method", "value"), lines), Figure("Curve", draw)]
