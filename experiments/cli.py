"""``python experiments/run.py NAME [--set tiny|sd14|vc2] [--seeds 0 1 2] [--only TEXT ...] [--again] [--list]``."""

import logging
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.base import Cell, Experiment
from experiments.page import Page
from experiments.registry import EXPERIMENTS
from experiments.results import Results, made
from experiments.scales import SCALES, Scale

LOG = logging.getLogger("experiments")

SEEDS = (0, 1, 2)


def main(
    arguments: Sequence[str] | None = None,
    experiments: Sequence[type[Experiment]] = EXPERIMENTS,
    scales: Mapping[str, Scale] = SCALES,
) -> int:
    """Measures the cells of an experiment that are not measured yet, and writes its page.

    Args:
        arguments: The arguments of the command line, by default those of the process.
        experiments: All experiments.
        scales: All scales, by name.

    Returns:
        0, or 1 if a cell failed or the machine lacks something.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    known = {experiment.name: experiment for experiment in experiments}
    options = parse(arguments, sorted(known), sorted(scales))
    scale = scales[options.set]
    if options.results:
        scale = replace(scale, results=options.results)
    try:
        return Session(known[options.name](), scale, options).run()
    except ValueError as error:
        LOG.error("error: %s", error)
        return 1


def parse(arguments: Sequence[str] | None, names: Sequence[str], sets: Sequence[str]) -> Namespace:
    """Returns the options of a command line."""
    parser = ArgumentParser(prog="experiments/run.py", description="Measure a table or figure of the paper.")
    parser.add_argument("name", choices=names)
    parser.add_argument("--set", choices=sets, default="tiny", help="the size: which model, rewards and prompts")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="TEXT", help="cells whose key has all of these, such as method=RLR"
    )
    parser.add_argument(
        "--again", action="store_true", help="measure cells again that are measured, and replace their rows"
    )
    parser.add_argument("--list", action="store_true", help="print the cells and their state without measuring")
    parser.add_argument("--results", type=Path, help="another folder for rows and pages")
    return parser.parse_args(arguments)


class Session:
    """One call of the command line.

    Args:
        experiment: The experiment.
        scale: The scale.
        options: The options of the command line.
    """

    def __init__(self, experiment: Experiment, scale: Scale, options: Namespace) -> None:
        self.experiment, self.scale, self.options = experiment, scale, options
        self.results = Results.of(scale, experiment.source or experiment.name)

    def run(self) -> int:
        """Measures the missing cells, and returns the exit status."""
        chosen = [
            cell
            for cell in self.experiment.cells(self.scale, self.options.seeds)
            if all(text in cell.title for text in self.options.only)
        ]
        if self.options.list:
            self._list(chosen)
            return 0
        missing = [cell for cell in chosen if self.options.again or not self.results.measured(cell)]
        if missing and (lacking := self.experiment.missing(self.scale)):
            LOG.error("%s", lacking)
            return 1
        try:
            failed = sum(not self._measure(cell, f"{k + 1}/{len(missing)}") for k, cell in enumerate(missing))
        finally:
            # an interrupted command writes the page of its measured cells
            self._write()
        return 1 if failed else 0

    def _list(self, cells: Sequence[Cell]) -> None:
        for cell in cells:
            state = "measured" if self.results.measured(cell) else "stale" if self.results.stale(cell) else "missing"
            LOG.info("%-9s %s\n          %s", state, cell.title, cell.recipe)

    def _measure(self, cell: Cell, number: str) -> bool:
        if self.results.stale(cell):
            LOG.info("%s has rows of another recipe; it is measured again", cell.title)
        LOG.info("%s %s %s", self.experiment.name, number, cell.title)
        start = self.scale.clock()
        try:
            rows = cell.work()
            self.results.add(cell, rows, made(self.scale, self.scale.clock() - start))
        except Exception:
            # other cells may still succeed, and the stored rows stay
            LOG.exception(
                "the cell %s failed; the next command measures it again",
                cell.title,
            )
            return False
        return True

    def _write(self) -> None:
        # the page includes the seeds of earlier commands
        seeds = sorted({*self.options.seeds, *(int(line["seed"]) for line in self.results.lines if "seed" in line)})
        cells = self.experiment.cells(self.scale, seeds)
        rows = self.results.rows(cells)
        counts = len(cells), sum(self.results.measured(cell) for cell in cells)
        paths = Page(self.experiment, self._command(seeds), rows, counts).write(self.results.path.parent)
        LOG.info("%s", ", ".join(str(path) for path in paths))

    def _command(self, seeds: Sequence[int]) -> str:
        numbers = " ".join(map(str, seeds))
        return f"python experiments/run.py {self.experiment.name} --set {self.scale.name} --seeds {numbers}"
