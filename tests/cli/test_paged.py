"""The page of a run as the commands leave it, whether they end or are interrupted."""

import csv
import json
from unittest.mock import patch

import pytest
import torch

from rlr.callbacks import Evaluation, HackingAlarm, Preview, SampleGrid
from rlr.callbacks.run_page import keep
from rlr.cli import main
from rlr.cli.paged import samples_to_show
from rlr.data import Prompts
from rlr.modules import Alignment
from rlr.records.record import Record
from tests.cli.conftest import root
from tests.modules.toy import align


def images(folder):
    return (folder / "index.html").read_text().count("<img")


def test_a_fit_and_a_test_leave_a_page_with_samples_before_and_after(config, fitted, tmp_path):
    run = fitted
    # both models, of both validation prompts
    assert images(run) == 4
    (sheet,) = Record(run).sheets
    assert (sheet.set, sheet.update, sheet.labels) == ("Prompts", 3, ["Level"])
    assert [card["prompt"] for card in sheet.cards] == ["four", "five"]
    assert all(card["scores"]["base"]["Level"] != card["scores"]["aligned"]["Level"] for card in sheet.cards)
    assert [(row["update"], row["measurement"]) for row in Record(run).history] == [("0", "Level"), ("3", "Level")]
    (command,) = Record(run).commands
    assert command["command"] == "fit"
    assert command["summary"].startswith("RLR(length 2, no zeroth) on AffineModel")

    over = tmp_path / "over.yaml"
    over.write_text("data: {init_args: {test: [six, seven, zero]}}\n")
    last = f"--ckpt_path={run / 'last.ckpt'}"
    main(["test", f"--config={config()}", f"--config={over}", last, root(tmp_path)])
    text = (run / "index.html").read_text()
    assert "Level on Prompts (test): " in text
    assert images(run) == 4 + 6
    assert [one["command"] for one in Record(run).commands] == ["fit", "test"]


def test_without_validation_prompts_those_of_the_training_are_sampled(config, tmp_path):
    main(["fit", f"--config={config(('    val: [four, five]' + chr(10), ''))}", root(tmp_path)])
    (sheet,) = Record(tmp_path / "out").sheets
    assert [card["prompt"] for card in sheet.cards] == ["one", "two", "three"]


def test_an_interrupted_run_has_a_page(config, tmp_path):
    learn, calls = Alignment._learn, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("stopped")
        return learn(*arguments)

    with patch.object(Alignment, "_learn", fail), pytest.raises(ZeroDivisionError):
        main(["fit", f"--config={config()}", root(tmp_path)])
    assert "Ended after 2 of 3 updates." in (tmp_path / "out" / "index.html").read_text()


def test_a_page_that_fails_does_not_fail_the_run(config, tmp_path):
    with (
        patch("rlr.records.run_page.run_page", side_effect=RuntimeError("no page")),
        pytest.warns(UserWarning, match=r"index\.html could not be written \(RuntimeError: no page\); the run itself"),
    ):
        cli = main(["fit", f"--config={config()}", root(tmp_path)])
    assert cli.trainer.global_step == 3
    assert not (tmp_path / "out" / "index.html").exists()


def test_the_preview_changes_nothing_in_training(config, tmp_path):
    off = "  max_steps: 3\n  callbacks: [{class_path: Preview, init_args: {every: null}}]\n"
    one = main(["fit", f"--config={config()}", root(tmp_path)])
    two = main(
        ["fit", f"--config={config(('  max_steps: 3' + chr(10), off))}", f"--trainer.default_root_dir={tmp_path / 'b'}"]
    )
    assert not (tmp_path / "b" / "samples").exists()
    for a, b in zip(one.model.weights, two.model.weights, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("command", "given", "added"),
    [
        ("fit", [], [Preview]),
        ("fit", [Evaluation(every=None)], [Preview]),
        ("fit", [Preview(every=None)], []),
        ("fit", [HackingAlarm()], []),
        ("test", [], [Evaluation]),
        ("test", [Evaluation(displays=[SampleGrid(1)])], []),
    ],
)
def test_what_is_added_to_the_callbacks(command, given, added):
    data = Prompts(["one"], val=["two"])
    assert [type(one) for one in samples_to_show(command, align(), data, given)] == added


def test_an_evaluation_without_a_display_gets_a_grid():
    evaluation = Evaluation(every=5)
    assert samples_to_show("fit", align(), Prompts(["one"]), [evaluation]) == []
    assert [type(display) for display in evaluation.displays] == [SampleGrid]


def test_a_resumed_run_replaces_the_evaluations_that_it_repeats(config, tmp_path):
    path = config(
        ("  max_steps: 3\n", "  max_steps: 3\n  callbacks: [{class_path: Evaluation, init_args: {every: 1}}]\n")
    )
    main(["fit", f"--config={path}", root(tmp_path)])
    file = tmp_path / "out" / "evaluation" / "fit" / "history.csv"
    whole = file.read_text()
    assert [row["update"] for row in csv.DictReader(whole.splitlines())] == ["0", "1", "2", "3"]
    # as if the run had gone on beyond its last checkpoint
    file.write_text(whole + whole.splitlines()[-1].replace("3,", "9,", 1) + "\n")
    main(["fit", str(tmp_path / "out"), "--resume", "--trainer.max_steps=4"])
    assert [row["update"] for row in csv.DictReader(file.open())] == ["0", "1", "2", "3", "4"]
    facts = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [command["command"] for command in facts["commands"]] == ["fit", "fit"]


@pytest.mark.parametrize("content", ['{"commands": [', "[1]"])
def test_a_damaged_list_of_commands_is_kept_beside_the_new_one(tmp_path, content):
    keep(tmp_path, {"command": "fit"})
    keep(tmp_path, {"command": "test"})
    assert [command["command"] for command in Record(tmp_path).commands] == ["fit", "test"]
    assert not (tmp_path / "run.json.damaged").exists()
    (tmp_path / "run.json").write_text(content)
    with pytest.warns(UserWarning, match=r"it is kept as .*run\.json\.damaged"):
        keep(tmp_path, {"command": "fit"})
    assert (tmp_path / "run.json.damaged").read_text() == content
    assert [command["command"] for command in Record(tmp_path).commands] == ["fit"]
