"""The CPU seconds of an update of every method of a track, from short runs one after another on an idle machine.

The CPU seconds of a run depend on what else the machine does: of the same run they differ by more than a half. The long runs of the
board are measured on many days, so that its pages have the number of updates times the seconds of an update from here.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import ClassVar

from experiments.base import Figure, Row, Run, Table
from experiments.board.base import TrackExperiment
from experiments.board.tracks import TRACK_A, TRACK_B
from experiments.results import Results
from experiments.settings import Setting
from experiments.summary import grouped

BEGIN, END = 4, 12
"""The updates between which seconds are taken: whole rounds of every method, after the first ones, which allocate memory."""


class UpdateSeconds(TrackExperiment):
    """Short runs of every method of a track that the pages of the board show."""

    evaluation = "experiments/configs/board_seconds.yaml"
    note: ClassVar[str] = (
        f"CPU seconds of the training steps of the updates {BEGIN + 1} to {END} of short runs, one after another on an idle "
        "machine, one thread. Means over runs, with the smallest and the largest. The learning rate, which has no effect on the "
        "seconds, is the smallest of the tries."
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        """Returns the runs, the first seed of all methods first."""
        self.check(setting)
        methods = [entry.method for entry in self.of_track() if not entry.ablation]
        return [
            self.training(setting, method, method.rates[0], seed, (BEGIN, END), {"seed": seed})
            for seed in seeds
            for method in methods
        ]

    @classmethod
    def use(cls) -> str:
        """Returns how a page uses the seconds."""
        return (
            "Since the seconds of a long run depend on what else the machine does, those of a method of "
            f"[{cls.name}]({cls.name}.md) are its updates times the seconds of an update there."
        )

    def each(self, setting: Setting) -> dict[str, float]:
        """Returns the CPU seconds of an update of each measured method."""
        results = Results.of(setting, self.name)
        found = of_methods(results.rows(self.runs(setting, results.seeds)))
        return {name: fmean(seconds) for name, seconds in found.items()}

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        found = of_methods(rows)
        samples = {method.name: method.samples for method in self.methods()}
        each_sample = {name: fmean(seconds) / samples[name] for name, seconds in found.items()}
        least = min(each_sample.values(), default=1.0)
        lines = [
            (
                name,
                str(samples[name]),
                f"{fmean(each):.2f}",
                f"{min(each):.2f} … {max(each):.2f}",
                f"{each_sample[name] / least:.2f}",
                str(len(each)),
            )
            for name, each in found.items()
        ]
        head = (
            "method",
            "samples an update",
            "CPU seconds an update",
            "smallest … largest",
            "a sample, over the least",
            "runs",
        )
        return [Table(f"An update, track {self.track.name.upper()}", head, lines)]


def of_methods(rows: Sequence[Row]) -> dict[str, list[float]]:
    """Returns the CPU seconds of an update for each method and run."""
    runs = {
        name: [
            {float(row["update"]): float(row["step_seconds"]) for row in run} for run in grouped(group, "seed").values()
        ]
        for (name,), group in grouped(rows, "method").items()
    }
    return {str(name): [(run[END] - run[BEGIN]) / (END - BEGIN) for run in each] for name, each in runs.items()}


def timed(rows: Sequence[Row], seconds: Mapping[str, float]) -> list[Row]:
    """Returns rows whose seconds are the updates times the seconds of an update; those of a method that is not measured stay.

    Args:
        rows: Rows with ``method``, ``update`` and ``step_seconds``.
        seconds: The CPU seconds of an update by the name of the method.
    """

    def spent(row: Row) -> float:
        each = seconds.get(str(row["method"]))
        return float(row["step_seconds"]) if each is None else each * float(row["update"])

    return [{**row, "step_seconds": spent(row)} for row in rows]


class UpdateSecondsA(UpdateSeconds):
    """The methods of track A."""

    name = "board_seconds_a"
    title = "CPU seconds of an update, track A"
    track = TRACK_A


class UpdateSecondsB(UpdateSeconds):
    """The methods of track B."""

    name = "board_seconds_b"
    title = "CPU seconds of an update, track B"
    track = TRACK_B
