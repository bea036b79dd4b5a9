"""All runs of a sweep, one after another: ``python -m rlr.cli.sweep configs/sweep/tiny.yaml``.

The file is one of Weights & Biases, whose agents run the same sweep on several machines.
"""

import json
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from rlr.cli.run_folder import RUNS, Run
from rlr.evaluation.report import say
from rlr.io.config_files import ConfigError, read_config
from rlr.io.json_file import write_json
from rlr.io.shape import NUMBER, Shape, misfit

FINISHED = "sweep.json"
"""The file in the folder of a run that holds its part of the sweep; it is written when the run has ended."""
ARGS = "${args}"
SCALAR = (None, bool, NUMBER, str)


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        folder: The folder of the run.
        values: The values of the parameters.
        command: The command line without the interpreter.
    """

    folder: Path
    values: Mapping[str, Any]
    command: Sequence[str]

    @property
    def finished(self) -> bool:
        """Whether it has ended."""
        return (self.folder / FINISHED).is_file()

    @property
    def line(self) -> list[str]:
        """The command line in the present state of the folder: a run that has begun is resumed."""
        return [*self.command, *(["--resume"] if Run(self.folder).begun else [])]


def trials(file: Path, further: Sequence[str] = ()) -> list[Trial]:
    """Returns the runs of a sweep, every combination of its values.

    Args:
        file: The sweep, with ``program``, ``parameters`` and ``command`` as W&B defines them.
        further: Options that each run gets beside.

    Raises:
        ConfigError: If it is no sweep over listed values.
    """
    content = read_sweep(file)
    macros = {"${env}": [], "${interpreter}": [], "${program}": [str(content["program"])]}
    found = []
    for values in _combinations(file, content["parameters"]):
        folder = Path(RUNS, file.stem, _folder(values))
        options = [f"--{name}={_text(value)}" for name, value in values.items()]
        filled = {**macros, ARGS: options}
        words = [word for part in content["command"] for word in filled.get(part, [str(part)])]
        found.append(Trial(folder, values, [*words, f"--name={folder.relative_to(RUNS)}", *further]))
    return found


def run_all(waiting: Sequence[Trial], execute: Callable[[Sequence[str]], int]) -> list[Trial]:
    """Runs what has not ended yet, and returns the runs that failed; one that fails does not keep the others from running.

    Args:
        waiting: The runs.
        execute: Runs a command line, and returns its status.
    """
    failed = []
    for number, trial in enumerate(waiting, 1):
        shown = ", ".join(f"{name} {_text(value)}" for name, value in trial.values.items())
        if trial.finished:
            say(f"run {number} of {len(waiting)} has ended before: {shown}")
            continue
        say(f"run {number} of {len(waiting)}: {shown} · {trial.folder}")
        if execute(trial.line) == 0:
            write_json(trial.folder / FINISHED, dict(trial.values))
        else:
            failed.append(trial)
    return failed


SWEEP: Shape = {"program": str, "parameters": {str: {"values": list}}, "command": [SCALAR]}
"""What the file of a sweep must look like."""


def read_sweep(file: Path) -> dict[str, Any]:
    """Returns what the file of a sweep holds.

    Raises:
        ConfigError: If it is no sweep.
    """
    content = read_config(file)
    if wrong := misfit(content, SWEEP):
        raise ConfigError(
            f"{file}: expected {wrong} of a sweep, found something else; see the examples in configs/sweep"
        )
    missing = [name for name in ("program", "parameters", "command") if name not in content]
    if missing or ARGS not in content["command"]:
        what = ", ".join(missing) or f"{ARGS} in command"
        raise ConfigError(f"{file}: expected a sweep with program, parameters and command, found no {what}")
    return content


def _combinations(file: Path, parameters: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    for name, given in parameters.items():
        if not given.keys() & {"value", "values"}:
            raise ConfigError(
                f"{file}: expected values of {name}, found {', '.join(given)}; list `values`, or run the sweep with W&B's agent"
            )
    listed = [given.get("values", [given.get("value")]) for given in parameters.values()]
    yield from (dict(zip(parameters, values, strict=True)) for values in product(*listed))


def _folder(values: Mapping[str, Any]) -> str:
    """Returns the name of the folder of a run, such as ``lr=0.001,estimator=RLR,seed=0``."""
    short = {"seed_everything": "seed"}
    parts = (f"{short.get(name, name.rpartition('.')[2])}={_text(value)}" for name, value in values.items())
    return ",".join(parts).replace("/", "_")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _execute(line: Sequence[str]) -> int:
    # a process each: memory is free again, and an abort ends one run alone
    return subprocess.run([sys.executable, *line], check=False).returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a sweep, and returns the status of the process: 1 if a run failed, 2 for a mistake in the file."""
    parser = ArgumentParser("python -m rlr.cli.sweep", description=__doc__)
    parser.add_argument("file", type=Path, help="the sweep, such as configs/sweep/tiny.yaml")
    parser.add_argument("--list", action="store_true", dest="listed", help="print the command lines, and run nothing")
    options, further = parser.parse_known_args(arguments)
    try:
        waiting = trials(options.file, further)
    except ConfigError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.listed:
        say("\n".join(" ".join(["python", *trial.line]) for trial in waiting))
        return 0
    failed = run_all(waiting, _execute)
    for trial in failed:
        sys.stderr.write(f"failed: {trial.folder}; the same command runs it again\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
