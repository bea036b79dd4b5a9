"""``index.html`` and ``run.json`` in the folder of a run."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.callbacks.evaluation import Listener
from rlr.evaluation.provenance import provenance
from rlr.evaluation.results import Results
from rlr.io.json_file import write_json
from rlr.records.record import FACTS, Record
from rlr.records.run_page import write_page


class RunPage(Callback, Listener):
    """Records the command, and writes the page of the run after every evaluation.

    Args:
        folder: The folder of the run.
        command: The command, such as ``fit``.
        line: The command line.
        summary: What the command does, in words.
    """

    def __init__(self, folder: Path, command: str, line: str, summary: str = "") -> None:
        self.folder, self.command, self.line, self.summary = folder, command, line, summary

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Adds the command, with device, date, commit and versions, to ``run.json``."""
        if trainer.is_global_zero:
            facts = {"command": self.command, "line": self.line, "summary": self.summary}
            keep(self.folder, {**facts, **provenance(trainer.strategy.root_device)})

    def on_evaluation(self, trainer: Trainer, pl_module: LightningModule, results: Results) -> None:
        # the command itself writes the page when it ends
        ends = trainer.testing or trainer.should_stop or trainer.global_step == trainer.max_steps
        if trainer.is_global_zero and not ends:
            make_page(self.folder)


def keep(folder: Path, facts: Mapping[str, Any]) -> None:
    """Adds the facts of a command to ``run.json``; a file of another form is moved to ``run.json.damaged``."""
    write_json(folder / FACTS, {"commands": [*_commands(folder), dict(facts)]})


def _commands(folder: Path) -> list[dict[str, Any]]:
    file = folder / FACTS
    try:
        found = Record(folder).commands
    except ValueError:
        found = []
    if not found and file.exists():
        aside = file.with_name(f"{FACTS}.damaged")
        file.replace(aside)
        warnings.warn(
            f"{file}: expected the commands of a run, found something else; it is kept as {aside}", stacklevel=3
        )
    return found


def make_page(folder: Path) -> None:
    """Writes the page of a run; warns, and does not raise, if that fails: the run is worth more than its page."""
    try:
        write_page(folder)
    except Exception as error:
        warnings.warn(
            f"the page {folder / 'index.html'} could not be written ({type(error).__name__}: {error}); the run itself is complete; "
            f"try again with `python train.py page {folder}`",
            stacklevel=2,
        )
