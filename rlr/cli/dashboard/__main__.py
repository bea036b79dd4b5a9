"""The command line of the dashboard."""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence

from rlr.cli.dashboard.layout import layout
from rlr.cli.dashboard.workspace import import_workspaces, logged_keys, report, workspace
from rlr.cli.wandb_run import PROJECT


def parser() -> ArgumentParser:
    """Returns the parser."""
    parser = ArgumentParser(
        "python -m rlr.cli.dashboard",
        description="Create the workspace and the report of a project in Weights & Biases, from what its runs have logged.",
    )
    parser.add_argument("--entity", required=True, help="the user or team")
    parser.add_argument("--project", default=PROJECT, help="the project (%(default)s)")
    parser.add_argument(
        "--grouped", action="store_true", help="draw runs that differ only in their seeds as one line with a band"
    )
    parser.add_argument(
        "--print", action="store_true", dest="shown", help="print what would be plotted, and create nothing"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Creates workspace and report, and prints their addresses; returns the status of the process."""
    options = parser().parse_args(arguments)
    try:
        if not options.shown:
            import_workspaces()
        sections = layout(logged_keys(options.entity, options.project))
    except (ImportError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if options.shown:
        for section in sections:
            panels = "".join(f"  {', '.join(panel.keys)}\n" for panel in section.panels)
            sys.stdout.write(f"{section.name}\n{panels}")
        return 0
    for made in (f(sections, options.entity, options.project, options.grouped) for f in (workspace, report)):
        made.save()
        sys.stdout.write(f"{made.url}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
