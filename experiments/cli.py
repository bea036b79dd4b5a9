"""``python experiments/run.py NAME [--setting tiny|sd14|vc2] [--seeds 0 1 2] [--only TEXT ...] [--again] [--list]``."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.base import Experiment, Run
from experiments.locks import claimed
from experiments.page import Page
from experiments.registry import EXPERIMENTS
from experiments.results import Results, provenance_columns
from experiments.settings import SETTINGS, Setting

LOG = logging.getLogger("experiments")

SEEDS = (0, 1, 2)


def main(
    arguments: Sequence[str] | None = None,
    experiments: Sequence[type[Experiment]] = EXPERIMENTS,
    settings: Mapping[str, Setting] = SETTINGS,
) -> int:
    """Measures the runs of an experiment that are not measured yet, and writes its page.

    Args:
        arguments: The arguments of the command line, by default those of the process.
        experiments: All experiments.
        settings: All settings, by name.

    Returns:
        0, or 1 if a run failed or the machine lacks something.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    known = {experiment.name: experiment for experiment in experiments}
    options = parse(arguments, sorted(known), sorted(settings))
    setting = settings[options.setting]
    if options.results:
        setting = replace(setting, results=options.results)
    try:
        return Session(known[options.name](), setting, options).run()
    except ValueError as error:
        LOG.error("error: %s", error)
        return 1


def parse(arguments: Sequence[str] | None, names: Sequence[str], settings: Sequence[str]) -> Namespace:
    """Returns the options of a command line."""
    parser = ArgumentParser(prog="experiments/run.py", description="Measure a table or figure of the paper.")
    parser.add_argument("name", choices=names)
    parser.add_argument(
        "--setting", choices=settings, default="tiny", help="the size: which model, rewards and prompts"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="runs whose key has all of these, such as method=RLR"
    )
    parser.add_argument(
        "--again", action="store_true", help="measure runs again that are measured, and replace their rows"
    )
    parser.add_argument("--list", action="store_true", help="print the runs and their state without measuring")
    parser.add_argument("--results", type=Path, help="another folder for rows and pages")
    return parser.parse_args(arguments)


class Session:
    """One call of the command line.

    Args:
        experiment: The experiment.
        setting: The setting.
        options: The options of the command line.
    """

    def __init__(self, experiment: Experiment, setting: Setting, options: Namespace) -> None:
        self.experiment, self.setting, self.options = experiment, setting, options
        self.results = Results.of(setting, experiment.source(setting))

    def run(self) -> int:
        """Measures the missing runs, and returns the exit status."""
        selected = [
            run
            for run in self.experiment.runs(self.setting, self.options.seeds)
            if all(text in run.title for text in self.options.only)
        ]
        if self.options.list:
            self._list(selected)
            return 0
        missing = [run for run in selected if self.options.again or not self.results.measured(run)]
        if missing and (lacking := self.experiment.missing(self.setting)):
            LOG.error("%s", lacking)
            return 1
        try:
            failed = sum(not self._claim(run, f"{k + 1}/{len(missing)}") for k, run in enumerate(missing))
        finally:
            # an interrupted command writes the page of its measured runs
            self.write_page()
        return 1 if failed else 0

    def _claim(self, run: Run, number: str) -> bool:
        """Measures a run that no other process measures, and returns whether nothing failed."""
        with claimed(self.setting, self.experiment.name, run) as mine:
            if not mine:
                LOG.info("%s is left to another process", run.title)
            # another process may have measured it since
            elif self.options.again or not self.results.measured(run):
                return self.measure(run, number)
        return True

    def _list(self, runs: Sequence[Run]) -> None:
        for run in runs:
            state = "measured" if self.results.measured(run) else "stale" if self.results.stale(run) else "missing"
            LOG.info("%-9s %s\n          %s", state, run.title, run.command)

    def measure(self, run: Run, number: str = "") -> bool:
        """Measures a run, and returns whether it succeeded."""
        if self.results.stale(run):
            LOG.info("%s has rows of another command; it is measured again", run.title)
        LOG.info("%s %s %s", self.experiment.name, number, run.title)
        start = self.setting.clock()
        try:
            rows = run.measure()
            self.results.add(run, rows, provenance_columns(self.setting, self.setting.clock() - start))
        except Exception:
            # other runs may still succeed, and the stored rows stay
            LOG.exception(
                "the run %s failed; the next command measures it again",
                run.title,
            )
            return False
        return True

    def write_page(self) -> None:
        """Writes the page of all measured runs."""
        paths = self.page().write(self.results.path.parent)
        LOG.info("%s", ", ".join(str(path) for path in paths))

    def page(self) -> Page:
        """Returns the page of all measured runs."""
        # the page includes the seeds of earlier commands
        seeds = sorted({*self.options.seeds, *self.results.seeds})
        runs = self.experiment.runs(self.setting, seeds)
        rows = self.experiment.prepared(self.setting, self.results.rows(runs))
        counts = len(runs), sum(self.results.measured(run) for run in runs)
        return Page(self.experiment, self._command(seeds), rows, counts)

    def _command(self, seeds: Sequence[int]) -> str:
        numbers = " ".join(map(str, seeds))
        return f"python experiments/run.py {self.experiment.name} --setting {self.setting.name} --seeds {numbers}"
