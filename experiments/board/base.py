"""What the experiments of a track share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from experiments.base import Experiment, Run
from experiments.board.methods import ENTRIES, Entry
from experiments.board.tracks import Track
from experiments.methods import Method
from experiments.settings import TINY, Setting
from experiments.training import Training


class TrackExperiment(Experiment):
    """Training runs of the methods of a track."""

    track: ClassVar[Track]
    entries: ClassVar[Sequence[Entry]] = ENTRIES
    evaluation: ClassVar[str]
    """The config of the evaluation."""

    def of_track(self) -> list[Entry]:
        """Returns the entries of the track with configured methods, the decisive ones first."""
        ordered = sorted(self.entries, key=lambda entry: not entry.decisive)
        found = [entry for entry in ordered if self.track in entry.tracks]
        return [replace(entry, method=self.track.configure(entry.method)) for entry in found]

    def methods(self) -> list[Method]:
        """Returns the configured methods of the track."""
        return [entry.method for entry in self.of_track()]

    def decisive(self) -> set[str]:
        """Returns the names of the methods that decide the default method."""
        return {entry.method.name for entry in self.entries if entry.decisive and self.track in entry.tracks}

    def training(
        self,
        setting: Setting,
        method: Method,
        rate: str,
        seed: int,
        points: tuple[int, ...],
        key: Mapping[str, str | int],
    ) -> Run:
        """Returns the run of a method with a learning rate, or the value in its place."""
        run = Training(method.with_overrides(f"{method.rate}={rate}"), self.evaluation, seed, points)
        return run.as_run(setting, self.name, {"method": method.name, **key})

    def check(self, setting: Setting) -> None:
        """Raises a ``ValueError`` for a setting that the board does not have."""
        if setting.name != TINY.name:
            raise ValueError(f"{self.name} has no setting {setting.name}; use --setting {TINY.name}")
