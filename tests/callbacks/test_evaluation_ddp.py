"""Two processes that share the prompts find what one process finds with all of them."""

import json

import pytest
import torch
from lightning.pytorch import Callback

from rlr.callbacks import Diversity, Evaluation, Listener
from rlr.data import Prompts
from rlr.rewards import Brightness
from tests.modules.toy import WORDS, AffineModel, Level, Replay, align, run

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


class Leave(Callback, Listener):
    """Leaves behind what each rank received."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def on_evaluation(self, trainer, pl_module, results):
        torch.save(results.metrics(), self.folder / f"{results.update}_{trainer.global_rank}.pt")


def evaluate(folder, batch_size, number, **settings):
    """Trains for two updates in float64, validates and evaluates some prompts."""
    folder.mkdir()
    module = align(model=AffineModel(dtype="float64", frozen=False), estimator=Replay(steps=3))
    data = Prompts(list(WORDS), val=list(WORDS[:number]), batch_size=batch_size)
    evaluation = Evaluation(metrics=[Level(), Brightness(), Diversity()], every=1, samples=2)
    callbacks = [evaluation, Leave(folder)]
    run(module, data, 2, callbacks=callbacks, default_root_dir=folder, precision="64-true", **settings)
    return json.loads((folder / "evaluation" / "fit" / "results.json").read_text())["sets"]["Prompts"]


@pytest.mark.parametrize("number", [1, 5])
def test_two_processes_equal_one(tmp_path, number):
    """Also where there are fewer prompts than processes."""
    one = evaluate(tmp_path / "one", 4, number)
    two = evaluate(tmp_path / "two", 2, number, strategy="ddp_fork", devices=2)
    for kind in ("scores", "base_scores"):
        assert one[kind].keys() == {"Level", "Brightness", "diversity"}
        for label, values in one[kind].items():
            torch.testing.assert_close(torch.tensor(two[kind][label]), torch.tensor(values), atol=1e-5, rtol=0)
    assert one["scores"] != one["base_scores"]
    for update in range(3):
        stated = [torch.load(tmp_path / "two" / f"{update}_{rank}.pt", weights_only=True) for rank in range(2)]
        assert stated[0] == stated[1]
