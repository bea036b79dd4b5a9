"""The line of progress has the numbers of the run."""

import re
from itertools import groupby

import pytest

from rlr.callbacks import Evaluation, ProgressLine
from rlr.data import Prompts
from rlr.io.terminal import ERASE, TERMINAL
from tests.io.test_terminal import Stream
from tests.modules.toy import WORDS, align, run


@pytest.fixture
def shown(monkeypatch, tmp_path):
    """Returns a function that runs something and returns the lines that a terminal has shown, in turn."""
    # a trainer without a folder of its own writes to the working directory
    monkeypatch.chdir(tmp_path)
    stream = Stream(live=True)
    monkeypatch.setattr(TERMINAL, "_stream", stream)

    def look(function):
        with TERMINAL.alive():
            found = function()
        return found, stream.getvalue().split(ERASE)[1:]

    return look


def train(module, **settings):
    data = Prompts(list(WORDS), val=["one", "two", "three"], batch_size=2, evaluation_samples=2)
    return run(module, data, 4, enable_progress_bar=True, **settings)


def test_each_update_is_stated_with_the_running_reward(shown):
    module = align()
    trainer, lines = shown(lambda: train(module, callbacks=[ProgressLine()]))
    updates = [line for line in lines if line.startswith("update")]
    assert [line.split(" ")[1] for line in updates] == ["1/4", "1/4", "2/4", "3/4", "4/4"]
    number = r"([-+]?[0-9.e-]+)"
    last = re.fullmatch(rf"update 4/4 · Level {number} \({number}\) · {number} s each · 0 s left", updates[-1])
    assert float(last[1]) == pytest.approx(module.progress.running, rel=1e-3)
    line = next(callback for callback in trainer.callbacks if isinstance(callback, ProgressLine))
    assert float(last[2]) == pytest.approx(module.progress.running - line.first, rel=0.06)


def test_validation_and_evaluation_state_what_is_left(shown):
    settings = {"val_check_interval": 4, "callbacks": [ProgressLine(), Evaluation()]}
    _, lines = shown(lambda: train(align(), **settings))
    validated = [line.split(" · ")[0] for line in lines if line.startswith("validating")]
    assert validated == [f"validating, batch {k}/3" for k in (1, 2, 3)]
    evaluated = [line for line in lines if line.startswith("evaluating Prompts, sample")]
    # a slow machine states a count twice
    counts = [count for count, _ in groupby(line.split(" · ")[0].split(" ")[-1] for line in evaluated)]
    assert counts == ["2/6", "4/6", "6/6"] * (len(counts) // 3)
    assert evaluated[-1].endswith(" · 0 s left")


def test_a_run_without_an_end_has_no_time_left(shown):
    module = align()
    settings = {"max_epochs": 1, "callbacks": [ProgressLine()], "limit_train_batches": 2}
    data = Prompts(list(WORDS), batch_size=2)
    _, lines = shown(lambda: run(module, data, -1, enable_progress_bar=True, **settings))
    updates = [line for line in lines if line.startswith("update")]
    assert not any("left" in line or "/" in line.split(" · ")[0] for line in updates)
    assert "each" in updates[-1]
