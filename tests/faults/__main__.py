"""Kills the programs at random moments and prints the table of docs/reliability.md: ``make test-faults``."""

import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from tests.faults.programs import PROGRAMS
from tests.faults.trials import SIGNALS, Row, Trials, table


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the trials, and returns 1 if anything was lost or failed."""
    parser = ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--count", type=int, default=20, help="moments for each program and signal")
    parser.add_argument("--only", nargs="+", default=[], metavar="TEXT", help="programs whose name has one of these")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(PROGRAMS):
            program = kind(Path(folder))
            if options.only and not any(text in program.name for text in options.only):
                continue
            trials = Trials(program, Path(folder, f"{number}"))
            sys.stderr.write(f"{program.name}: {trials.prepare()} moments\n")
            for name in SIGNALS:
                rows.append(trials.run(name, options.count, options.seed))
                sys.stderr.write("".join(f"{line}\n" for line in [table(rows[-1:]).splitlines()[-1], *rows[-1].notes]))
    sys.stdout.write(f"{table(rows)}\n")
    return int(any(row.lost or row.failed for row in rows))


if __name__ == "__main__":
    sys.exit(main())
