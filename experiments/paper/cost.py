"""The cost of an update of each method, for comparisons at equal seconds."""

from collections.abc import Sequence

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.methods import TINY_METHODS, TINY_TARGETS, Method
from experiments.results import Results
from experiments.settings import TINY, Setting
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

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.gpu:
            raise ValueError(
                f"costs are measured for the setting {TINY.name} alone; the other settings are compared at equal samples"
            )
        return [self._run(setting, method) for method in TINY_METHODS]

    def _run(self, setting: Setting, method: Method) -> Run:
        few = method.with_reward(TINY_TARGETS[0]).with_overrides("trainer.callbacks.limit=4")
        run = Training(few, "experiments/configs/tiny.yaml", 0, (WARM, MEASURED)).as_run(
            setting, self.name, {"method": method.name}
        )
        return Run(run.key, run.command, lambda: [self._row(run.measure())])

    def _row(self, rows: Sequence[Row]) -> Row:
        first, last = (next(row for row in rows if row["update"] == update) for update in (WARM, MEASURED))

        def per_update(name: str) -> float:
            return round((float(last[name]) - float(first[name])) / (MEASURED - WARM), 4)

        return {name: per_update(name) for name in ("step_seconds", "samples", "reward_calls")}

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        names = ("step_seconds", "samples", "reward_calls")
        lines = [(str(m), *(mean_of(g, n) for n in names)) for (m,), g in grouped(rows, "method").items()]
        return [Table("An update", ("method", "CPU seconds", "samples", "reward calls"), lines)]


def costs(setting: Setting) -> dict[str, float]:
    """Returns the measured seconds of an update of each method.

    Raises:
        ValueError: If a method is not measured.
    """
    runs = Cost().runs(setting, ())
    rows = Results.of(setting, Cost.name).rows(runs)
    found = {str(row["method"]): float(row["step_seconds"]) for row in rows}
    lacking = [str(run.key["method"]) for run in runs if run.key["method"] not in found]
    if lacking:
        raise ValueError(
            f"the cost of an update of {', '.join(lacking)} is not measured; run `python experiments/run.py cost --setting "
            f"{setting.name}` first"
        )
    return found
