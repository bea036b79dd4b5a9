"""``python train.py page RUN`` and ``python train.py compare RUN RUN …``, which need neither torch nor a config."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlr.evaluation.report import say
from rlr.io.config_files import ConfigError

FOLDER = "comparison"
"""The folder that ``compare`` writes to."""


def on_runs(arguments: Sequence[str]) -> list[Path]:
    """Runs a command on the folders of runs, prints the files that it has written, and returns them.

    Raises:
        ConfigError: If a folder holds no run, or a file of a run is damaged.
    """
    options = _parser().parse_args(arguments)
    try:
        written = _pages(options) if options.command == "page" else _comparison(options)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    say("\n".join(map(str, written)))
    return written


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python train.py", add_help=False)
    commands = parser.add_subparsers(dest="command", required=True)
    runs: dict[str, Any] = {
        "nargs": "+",
        "metavar": "RUN",
        "help": "the folder of a run, or a pattern such as 'runs/*'",
    }
    page = commands.add_parser(
        "page", description="Write index.html in the folders of runs, from the files that are there."
    )
    page.add_argument("runs", **runs)
    compare = commands.add_parser(
        "compare",
        description="Compare runs: curves, paired differences on the same prompts and noises, images. Runs whose configs differ "
        "only in seeds are one group; the first group is the reference.",
    )
    compare.add_argument("runs", **runs)
    compare.add_argument("--folder", default=FOLDER, help=f"where to write, by default {FOLDER}")
    return parser


def _pages(options: argparse.Namespace) -> list[Path]:
    from rlr.records.run_page import write_page
    from rlr.records.table import found

    return [write_page(folder) for folder in found(options.runs)]


def _comparison(options: argparse.Namespace) -> list[Path]:
    from rlr.records.comparison import write_comparison
    from rlr.records.table import found

    return write_comparison(found(options.runs), Path(options.folder))
