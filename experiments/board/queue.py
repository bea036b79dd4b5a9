"""Works through the runs of the board: ``python -m experiments.board.queue [NAME ...] [--seeds 0 1 2] [--commit]``.

Each run has a process of its own with one thread, which imports the code as it is then. Several of these commands may work side by
side. After a kill, the same command resumes the interrupted run from its last checkpoint.
"""

import logging
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.base import Run
from experiments.board.board import BoardA, BoardB, BoardExperiment, BoardFlow, BoardLong
from experiments.board.finals import BoardFinals, BoardFinalsA, BoardFinalsB, BoardFinalsFlow
from experiments.board.tuning import BoardTuning, BoardTuningA, BoardTuningB, BoardTuningFlow
from experiments.cli import SEEDS, Session
from experiments.locks import claim_file, claimed
from experiments.settings import ROOT, TINY, Setting

LOG = logging.getLogger("experiments")

Planned = BoardTuning | BoardFinals | BoardExperiment
EXPERIMENTS: Mapping[str, type[Planned]] = {
    experiment.name: experiment
    for experiment in (
        *(BoardTuningA, BoardFinalsA, BoardA),
        *(BoardTuningB, BoardFinalsB, BoardB),
        BoardLong,
        *(BoardTuningFlow, BoardFinalsFlow, BoardFlow),
    )
}
"""The experiments in their order, which is that of the measurements among equally decisive methods."""

MEASURED, FAILED, EMPTY, WAITING = 0, 1, 3, 4
"""The exit statuses of a process for one run: measured, failed, no run left, and all runs left are measured by others."""
PAUSE = 60.0
"""Seconds to wait for the tries of other processes."""


def main(
    arguments: Sequence[str] | None = None,
    setting: Setting = TINY,
    experiments: Mapping[str, type[Planned]] = EXPERIMENTS,
) -> int:
    """Measures the planned runs one after another, and returns the exit status.

    Args:
        arguments: The arguments of the command line, by default those of the process.
        setting: The setting.
        experiments: The experiments by name.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given, list(experiments))
    if options.results:
        setting = replace(setting, results=options.results)
    queue = Queue(setting, [experiments[name]() for name in options.names], options)
    if options.list:
        for session, run in queue.planned():
            LOG.info("%s %s\n          %s", session.experiment.name, run.title, run.command)
        return MEASURED
    if options.one:
        return queue.measure_next()
    if options.retry:
        queue.forget_failures()
    return work([argument for argument in given if argument != "--retry"])


def parse(arguments: Sequence[str], known: Sequence[str]) -> Namespace:
    """Returns the options of a command line."""
    parser = ArgumentParser(prog="python -m experiments.board.queue", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"experiments in their order: {', '.join(known)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="training seeds of the board")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="runs whose key has all of these")
    parser.add_argument("--commit", action="store_true", help="commit the rows and pages after every run")
    parser.add_argument("--retry", action="store_true", help="also measure runs that failed before")
    parser.add_argument("--one", action="store_true", help="measure one run and exit")
    parser.add_argument("--list", action="store_true", help="print the runs that are left, in their order")
    parser.add_argument("--results", type=Path, help="another folder for rows and pages")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"expected NAME among {', '.join(known)}, got {', '.join(unknown)}")
    options.names = options.names or list(known)
    return options


def work(arguments: Sequence[str]) -> int:
    """Starts a process for each run until no run is left, and returns the exit status."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "experiments.board.queue", *arguments, "--one"]
    failed = False
    while True:
        status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
        if status == EMPTY:
            return FAILED if failed else MEASURED
        if status == WAITING:
            time.sleep(PAUSE)
        elif status == FAILED:
            failed = True
        elif status != MEASURED:
            LOG.error("the process of a run ended with status %d; run the command again to resume", status)
            return FAILED


class Queue:
    """The runs that are left.

    Args:
        setting: The setting.
        experiments: The experiments in their order.
        options: The options of the command line.
    """

    def __init__(self, setting: Setting, experiments: Sequence[Planned], options: Namespace) -> None:
        self.setting, self.experiments, self.options = setting, experiments, options

    def planned(self) -> Iterator[tuple[Session, Run]]:
        """Yields the runs that are not measured; those of decisive methods first.

        The runs of the board of a method follow once its learning rate is selected.
        """
        for first in (True, False):
            for experiment in self.experiments:
                session, decisive = Session(experiment, self.setting, self.options), experiment.decisive()
                for run in experiment.runs(self.setting, self.options.seeds):
                    matches = (run.key["method"] in decisive) == first
                    matches = matches and all(text in run.title for text in self.options.only)
                    if matches and not session.results.measured(run):
                        yield session, run

    def measure_next(self) -> int:
        """Measures the first run that no other process measures, and returns the exit status."""
        status = EMPTY
        for session, run in self.planned():
            if self._failed(session, run):
                continue
            with claimed(self.setting, session.experiment.name, run) as mine:
                if not mine:
                    status = WAITING
                # another process may have measured it since
                elif not session.results.measured(run):
                    return self._measure(session, run)
        return status

    def forget_failures(self) -> None:
        """Removes the marks of runs that have failed."""
        for session, run in self.planned():
            self._failure(session, run).unlink(missing_ok=True)

    def _measure(self, session: Session, run: Run) -> int:
        if not session.measure(run):
            self._failure(session, run).write_text(run.command, encoding="utf-8")
            return FAILED
        session.write_page()
        if self.options.commit:
            commit_results(session, run)
        return MEASURED

    def _failed(self, session: Session, run: Run) -> bool:
        """Whether the run has failed before, with the present command."""
        failure = self._failure(session, run)
        return failure.is_file() and failure.read_text(encoding="utf-8") == run.command

    def _failure(self, session: Session, run: Run) -> Path:
        return claim_file(self.setting, session.experiment.name, run).with_suffix(".failed")


def commit_results(session: Session, run: Run) -> None:
    """Commits the rows and pages of an experiment, and nothing else."""
    folder, name = session.results.path.parent, session.experiment.name
    paths = [str(path) for pattern in (f"{name}.*", f"{name}_[0-9].png") for path in sorted(folder.glob(pattern))]
    for command in (["add", "--", *paths], ["commit", "-q", "-m", f"Measure {name} {run.title}", "--", *paths]):
        done = subprocess.run(["git", *command], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            LOG.error("git %s failed: %s", command[0], (done.stderr or done.stdout).strip())
            return


if __name__ == "__main__":
    sys.exit(main())
