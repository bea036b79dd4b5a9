"""The cost of an update of each method, for comparisons at equal seconds."""

from collections.abc import Sequence

from experiments.base import Cell, Experiment, Figure, Row, Table
from experiments.methods import TINY_METHODS, TINY_TARGETS, Method
from experiments.results import Results
from experiments.scales import TINY, Scale
from experiments.summary import grouped, mean_of
from experiments.training import Training

WARM, MEASURED = 4, 20
"""The updates after which the clock starts and stops."""


class Cost(Experiment):
    """CPU seconds of an update, without the evaluation, the first updates and the start of the program."""

    name = "cost"
    title = "The cost of an update"
    note = (
        f"CPU seconds of the one thread, from update {WARM + 1} to {MEASURED} of a run for TinyPickScore. They are measured "
        "once and stored: they determine the numbers of updates at equal seconds, which are the same on every machine."
    )

    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        if scale.gpu:
            raise ValueError(
                f"costs are measured for the set {TINY.name} alone; the other sets are compared at equal samples"
            )
        return [self._cell(scale, method) for method in TINY_METHODS]

    def _cell(self, scale: Scale, method: Method) -> Cell:
        few = method.towards(TINY_TARGETS[0]).but("trainer.callbacks.limit=4")
        run = Training(few, "experiments/configs/tiny.yaml", 0, (WARM, MEASURED)).cell(
            scale, self.name, {"method": method.name}
        )
        return Cell(run.key, run.recipe, lambda: [self._row(run.work())])

    def _row(self, rows: Sequence[Row]) -> Row:
        first, last = (next(row for row in rows if row["update"] == update) for update in (WARM, MEASURED))

        def per_update(name: str) -> float:
            return round((float(last[name]) - float(first[name])) / (MEASURED - WARM), 4)

        return {name: per_update(name) for name in ("step_seconds", "samples", "reward_calls")}

    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        names = ("step_seconds", "samples", "reward_calls")
        lines = [(str(m), *(mean_of(g, n) for n in names)) for (m,), g in grouped(rows, "method").items()]
        return [Table("An update", ("method", "CPU seconds", "samples", "reward calls"), lines)]


def costs(scale: Scale) -> dict[str, float]:
    """Returns the measured seconds of an update of each method.

    Raises:
        ValueError: If a method is not measured.
    """
    cells = Cost().cells(scale, ())
    rows = Results.of(scale, Cost.name).rows(cells)
    found = {str(row["method"]): float(row["step_seconds"]) for row in rows}
    lacking = [str(cell.key["method"]) for cell in cells if cell.key["method"] not in found]
    if lacking:
        raise ValueError(
            f"the cost of an update of {', '.join(lacking)} is not measured; run `python experiments/run.py cost --set "
            f"{scale.name}` first"
        )
    return found
