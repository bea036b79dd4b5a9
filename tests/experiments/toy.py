"""An experiment that costs nothing and can be made to fail."""

from collections.abc import Sequence
from typing import ClassVar

from experiments.base import Cell, Experiment, Figure, Row, Table
from experiments.scales import Scale
from experiments.summary import grouped, mean_of


class Toy(Experiment):
    """Ten times the seed, for two methods."""

    name = "toy"
    title = "A <toy>"
    note = "Nothing is measured."
    published = (Table("their numbers", ("method", "value"), [("A", "3.14159")]),)

    factor: ClassVar[int] = 10
    broken: ClassVar[set[str]] = set()
    worked: ClassVar[list[str]] = []

    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        return [self._cell(method, seed) for seed in seeds for method in ("A", "B")]

    def _cell(self, method: str, seed: int) -> Cell:
        key: dict[str, str | int] = {"method": method, "seed": seed}
        return Cell(key, f"{self.factor} × seed", lambda: self._work(f"{method}{seed}", seed))

    def _work(self, title: str, seed: int) -> list[Row]:
        self.worked.append(title)
        if title in self.broken:
            raise RuntimeError(f"{title} is broken")
        return [{"update": float(k), "value": float(self.factor * seed + k)} for k in range(2)]

    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        lines = [(str(method), mean_of(group, "value", 1)) for (method,), group in grouped(rows, "method").items()]

        def draw(canvas) -> None:
            canvas.subplots().plot([row["value"] for row in rows])

        return [Table("Means", ("method", "value"), lines), Figure("Curve", draw)]
