"""The committed results: each page is that of its rows, and each row is of a command that still exists."""

import re
from pathlib import Path

import pytest

from experiments.cli import Session, parse
from experiments.registry import EXPERIMENTS
from experiments.settings import SETTINGS, TINY

KNOWN = {experiment.name: experiment for experiment in EXPERIMENTS}
PAGES = sorted((TINY.results / TINY.name).glob("*.md"))


def session(page: Path) -> Session:
    """Returns the command that the page gives, on the committed rows."""
    seeds = re.findall(r"--seeds ([\d ]+)\n", page.read_text())[0].split()
    arguments = [page.stem, "--seeds", *seeds]
    return Session(KNOWN[page.stem](), TINY, parse(arguments, list(KNOWN), list(SETTINGS)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_that_of_its_rows(page: Path) -> None:
    found = session(page).page().markdown()
    again = f"python experiments/run.py {page.stem} --only no-such-run"
    assert found == page.read_text(), f"{page.name} is not what its rows give; run `{again}`, which measures nothing"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_row_is_of_a_command_that_has_changed(page: Path) -> None:
    found = session(page)
    runs = found.experiment.runs(TINY, found.options.seeds)
    assert [run.title for run in runs if found.results.stale(run)] == []
    assert any(found.results.measured(run) for run in runs)
