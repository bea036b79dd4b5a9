"""The path of a batch through the files of the package is the one that CONTRIBUTING.md states."""

import re
import sys
from pathlib import Path

import pytest

import rlr
from rlr.estimators import HalfOrderRLR
from tests.modules.toy import align, prompts, run

PACKAGE = Path(rlr.__file__).parent
SECTION = (
    (PACKAGE.parent / "CONTRIBUTING.md")
    .read_text(encoding="utf-8")
    .split("## From a batch of prompts")[1]
    .split("\n## ")[0]
)
LISTED = re.findall(r"^\| `([\w/]+\.py)` \|", SECTION, re.MULTILINE)
BEFORE = ["cli/command_line.py", "data/stream.py"]
"""The files before the training step."""
PARTS = ("models", "samplers", "estimators", "rewards")
"""The packages of the classes that a config names."""
HOOK = "Alignment.on_before_optimizer_step"


class Followed:
    """The files of the package that a training step enters, in order, and the functions by which one enters another."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.entries: set[tuple[str, str]] = set()

    def __call__(self, frame, event, argument):
        file = inside(frame) if event == "call" else None
        if file is None:
            return
        if file not in self.files:
            self.files.append(file)
        caller = frame.f_back
        while caller is not None and inside(caller) is None:
            caller = caller.f_back
        if caller is None or inside(caller) != file:
            self.entries.add((file, frame.f_code.co_qualname))


def inside(frame) -> str | None:
    """The file of a frame if it is one of the package."""
    path = Path(frame.f_code.co_filename)
    return path.relative_to(PACKAGE).as_posix() if path.is_relative_to(PACKAGE) else None


@pytest.fixture(scope="module")
def followed() -> Followed:
    """A training step with terms of first and half order."""
    module, found = align(estimator=HalfOrderRLR(length=2)), Followed()
    step = module.training_step

    def training_step(batch, batch_idx):
        sys.setprofile(found)
        try:
            return step(batch, batch_idx)
        finally:
            sys.setprofile(None)

    module.training_step = training_step
    run(module, prompts())
    assert module.progress.updates == 1
    return found


def helpers() -> set[str]:
    """The files that the page calls helpers."""
    above, modules = re.search(r"stay out of the list: (.*?); in `modules`, (.*?)\.", SECTION, re.DOTALL).groups()
    return {f"{name}.py" for name in re.findall(r"`(\w+)`", above)} | {
        f"modules/{name}.py" for name in re.findall(r"`(\w+)`", modules)
    }


def test_a_batch_passes_the_listed_files_in_their_order(followed):
    assert len(LISTED) == 9
    assert LISTED[:2] == BEFORE
    assert [file for file in followed.files if file in LISTED] == LISTED[2:]


def test_it_passes_no_other_file_but_helpers_and_the_parts_that_a_config_names(followed):
    others = {file for file in followed.files if file not in LISTED and file.split("/")[0] not in PARTS}
    assert others == helpers()


def test_one_hook_alone_leads_back_to_the_module(followed):
    entered = {function for file, function in followed.entries if file == "modules/alignment.py"}
    assert entered == {"Alignment.training_step", HOOK}
