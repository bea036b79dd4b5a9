"""``metrics.csv`` in the folder of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.apply_func import convert_tensors_to_scalars
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from rlr.callbacks.loggers import show_image, show_table, show_video
from rlr.io.atomic import write_whole
from rlr.io.csv_file import read_table, to_csv

UPDATE = "reward/mean"
"""What the row of an update has."""


class MetricsFile(CSVLogger):
    """Writes ``metrics.csv`` in a folder, one row each time something is logged; a resumed run continues the file.

    Rows of updates that the checkpoint has not seen are replaced by those of the resumed run. Images, videos and tables have their
    own files in the folder of a run, so this logger does not write them.

    Args:
        folder: The folder.
        resume: Whether to continue the file.
    """

    def __init__(self, folder: str | Path, resume: bool = False) -> None:
        super().__init__(folder, name="", version="", flush_logs_every_n_steps=1)
        self.resume = resume

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        if self._experiment is None:
            self._experiment = Rows(self.log_dir, self.resume)
        return self._experiment  # type: ignore[return-value]

    @rank_zero_only
    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The config of the run is in ``config.yaml``."""


class Rows(ExperimentWriter):
    """The rows of ``metrics.csv``.

    Args:
        folder: The folder.
        resume: Whether to keep the rows that are there.
    """

    def __init__(self, folder: str, resume: bool) -> None:
        self._continues = resume
        self._logged: tuple[int | None, dict[str, Any]] | None = None
        super().__init__(folder)
        self._file = Path(self.metrics_file_path)
        if not resume:
            self._file.unlink(missing_ok=True)

    def _check_log_dir_exists(self) -> None:
        """The folder may exist; Lightning would warn and delete the file."""

    def log_metrics(self, metrics_dict: Mapping[str, Any], step: int | None = None) -> None:
        """Adds a row; one that was logged just before is there already."""
        logged = (step, dict(metrics_dict))
        if logged == self._logged:
            return
        self._logged = logged
        if self._continues and step is not None:
            self._continues = False
            self._keep_before(step, metrics_dict)
        super().log_metrics(dict(metrics_dict), step)

    def save(self) -> None:
        # an empty row has nothing that a file could hold
        self.metrics = [row for row in self.metrics if len(row) > 1]
        super().save()

    def _keep_before(self, step: int, metrics: Mapping[str, Any]) -> None:
        """Removes the rows that the resumed run will log again."""
        self.metrics_keys, rows = read_table(self._file)
        if not self.metrics_keys:
            return
        # what another callback logs before the first update has the step of the checkpoint, whose row is kept
        update = UPDATE in metrics
        kept = [
            row
            for row in rows
            if _step(row) < step or (_step(row) == step and not update and not any(row.get(k) for k in metrics))
        ]
        # Lightning, which appends to the file, ends lines by CRLF
        write_whole(self._file, to_csv(self.metrics_keys, kept).replace(b"\n", b"\r\n"))


def write_row(trainer: Trainer) -> None:
    """Writes the row of the update that has just been made to ``metrics.csv``.

    Lightning logs it after the callbacks of the batch. A process that is killed in between, after a checkpoint has been written,
    would lose the row: the resumed run begins with the next update.
    """
    connector = trainer._logger_connector
    files = [logger for logger in trainer.loggers if isinstance(logger, MetricsFile)]
    if files and (connector.should_update_logs or trainer.fast_dev_run):  # type: ignore[attr-defined]
        row = convert_tensors_to_scalars(connector.metrics["log"])
        step = row.pop("step", None)
        for file in files if step is not None else ():
            file.log_metrics(row, int(step))
            file.save()


def _step(row: Mapping[str, str]) -> int:
    return int(row.get("step") or 0)


for _show in (show_image, show_video, show_table):
    _show.register(MetricsFile, lambda *args: None)
