"""Tensors without content leave no trace in the process that made them."""

import subprocess
import sys

import pytest

SCRIPT = """
import multiprocessing
import torch
from rlr.analysis.footprint.fake import Fake, FakeTensorMode

def backward():
    torch.ones((), requires_grad=True).backward()

with {mode}:
    backward()
child = multiprocessing.get_context("fork").Process(target=backward)
child.start()
child.join()
raise SystemExit(child.exitcode)
"""


@pytest.mark.parametrize(("mode", "fails"), [("Fake().active()", False), ("FakeTensorMode()", True)])
def test_a_process_forks_after_an_estimate_and_trains(mode: str, fails: bool) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(mode=mode)], capture_output=True, text=True, check=False)
    assert bool(done.returncode) == fails, done.stderr
    assert ("fork-based multiprocessing" in done.stderr) == fails
