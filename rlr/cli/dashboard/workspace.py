"""A layout as a workspace and as a report of Weights & Biases."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from rlr.cli.dashboard.layout import Gallery, Panel, Plot, Section

NAME = "rlr"
"""The name of workspace and report."""
COLUMNS = ("estimator", "reward", "base", "lr", "batch", "seed")
"""The settings that are shown beside the names of runs."""
WIDTH, HEIGHT = 24, 8
"""The width of a report, and the height of a plot, in the units of its grid."""


def import_workspaces() -> tuple[Any, Any]:
    """Returns the modules of workspaces and of reports.

    Raises:
        ImportError: If wandb-workspaces is not installed.
    """
    try:
        from wandb_workspaces import workspaces
        from wandb_workspaces.reports import v2 as reports
    except ImportError as error:
        raise ImportError(
            f"the dashboard needs the package wandb-workspaces, and {error.name or error} cannot be imported; install it with "
            f"`{sys.executable} -m pip install wandb-workspaces`"
        ) from error
    return workspaces, reports


def workspace(sections: Sequence[Section], entity: str, project: str, grouped: bool = False) -> Any:
    """Returns a workspace, to be saved.

    Args:
        sections: The layout.
        entity: The user or team.
        project: The project.
        grouped: Whether runs that differ only in their seeds are one line with a band.
    """
    workspaces, reports = import_workspaces()
    shown = [
        workspaces.Section(name=section.name, panels=[_panel(panel, reports) for panel in section.panels], is_open=True)
        for section in sections
    ]
    runs = workspaces.RunsetSettings(
        groupby=[workspaces.Metric("Group")] if grouped else [],
        pinned_columns=[f"config:{name}.value" for name in COLUMNS],
    )
    settings = workspaces.WorkspaceSettings(x_axis="trainer/global_step")
    return workspaces.Workspace(
        entity=entity, project=project, name=NAME, sections=shown, settings=settings, runset_settings=runs
    )


def report(sections: Sequence[Section], entity: str, project: str, grouped: bool = False) -> Any:
    """Returns a report, to be saved, with a heading, a note and a grid for each section. The arguments are those of a workspace."""
    _, reports = import_workspaces()
    blocks: list[Any] = [reports.TableOfContents()]
    for section in sections:
        runs = reports.Runset(entity=entity, project=project, groupby=["group"] if grouped else [])
        panels = [_placed(panel, at, reports) for at, panel in enumerate(section.panels)]
        blocks += [reports.H2(section.name), *([reports.P(section.note)] if section.note else [])]
        blocks.append(reports.PanelGrid(runsets=[runs], panels=panels))
    return reports.Report(entity=entity, project=project, title=NAME, blocks=blocks, width="fluid")


def _placed(panel: Panel, at: int, reports: Any) -> Any:
    """Returns a panel at its place: three plots a row, anything else over the whole width."""
    made = _panel(panel, reports)
    if isinstance(panel, Plot):
        third = WIDTH // 3
        made.layout = reports.Layout(x=at % 3 * third, y=at // 3 * HEIGHT, w=third, h=HEIGHT)
    else:
        made.layout = reports.Layout(x=0, y=at * 2 * HEIGHT, w=WIDTH, h=2 * HEIGHT)
    return made


def _panel(panel: Panel, reports: Any) -> Any:
    if isinstance(panel, Plot):
        return reports.LinePlot(title=panel.title, x=panel.x, y=list(panel.keys), title_x=panel.x_title)
    if isinstance(panel, Gallery):
        return reports.MediaBrowser(title=panel.title, media_keys=list(panel.keys), num_columns=1)
    return reports.WeavePanelSummaryTable(table_name=panel.key)


def logged_keys(entity: str, project: str) -> set[str]:
    """Returns the names of all that the runs of a project have logged.

    Raises:
        ValueError: If the project does not exist, or has no run that has logged anything.
    """
    import wandb

    try:
        keys = set(_keys(wandb.Api().runs(f"{entity}/{project}")))
    except (wandb.errors.CommError, ValueError) as error:
        raise ValueError(
            f"the project {entity}/{project} cannot be read: {error}; check --entity and --project"
        ) from error
    if not keys:
        raise ValueError(
            f"the project {entity}/{project} has no run that has logged anything; begin one with `python train.py fit "
            f"--config FILE --trainer.logger WandbLogger` and WANDB_PROJECT={project}"
        )
    return keys


def _keys(runs: Any) -> Iterator[str]:
    for run in runs:
        yield from run.summary.keys()
