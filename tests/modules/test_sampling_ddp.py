"""The mean reward of ``validate`` and ``test`` is the same on any number of processes."""

import json

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from rlr.data import Prompts
from rlr.data.stream import PromptBatch
from rlr.modules.sampling import Means
from tests.modules.latents.test_doodl import doodl
from tests.modules.toy import WORDS, AffineModel, align

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")


class Leave(Callback):
    """Writes what each rank has logged."""

    def __init__(self, folder):
        self.folder = folder

    def setup(self, trainer, pl_module, stage):
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def teardown(self, trainer, pl_module, stage):
        values = {name: value.item() for name, value in trainer.callback_metrics.items()}
        (self.folder / f"{trainer.global_rank}.json").write_text(json.dumps(values))


def logged(folder, module, data, command, **settings):
    folder.mkdir(parents=True)
    silent = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**silent, callbacks=[Leave(folder)], default_root_dir=folder, **settings)
    getattr(trainer, command)(module, datamodule=data, verbose=False)
    return [json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))]


@pytest.mark.parametrize(
    ("command", "number", "batch_size"),
    [("validate", 1, 4), ("validate", 3, 4), ("validate", 5, 1), ("test", 1, 1), ("test", 3, 1), ("test", 5, 4)],
)
def test_two_processes_find_the_mean_of_one(tmp_path, command, number, batch_size):
    """One sample is one and none, three are two and one, five are three and two: the shares differ, the mean does not."""
    data = Prompts(val=list(WORDS[:number]), batch_size=batch_size)
    (one,) = logged(tmp_path / "one", align(model=AffineModel()), data, command)
    two = logged(tmp_path / "two", align(model=AffineModel()), data, command, strategy="ddp_fork", devices=2)
    assert len(two) == 2
    # the step of the log beside the two numbers
    assert one.keys() == {
        "step",
        *(f"{'val' if command == 'validate' else 'test'}/{name}" for name in ("reward", "Level")),
    }
    for rank in two:
        assert rank == pytest.approx(one, rel=1e-6)


def test_two_processes_find_the_mean_of_one_with_optimized_latents(tmp_path):
    def measured(folder, **settings):
        data = Prompts(val=list(WORDS[:3]), batch_size=2)
        return logged(tmp_path / folder, doodl("float32", iterations=1), data, "test", **settings)

    (one,) = measured("one")
    two = measured("two", strategy="ddp_fork", devices=2)
    assert "test/reward_before" in one
    for rank in two:
        assert rank == pytest.approx(one, rel=1e-4)


def test_values_that_are_not_finite_do_not_count():
    means = Means()
    means.add("a", torch.tensor([1.0, float("nan"), 2.0]))
    means.add("a", torch.tensor([float("inf"), 6.0]))
    means.add("b", torch.tensor([float("nan")]))
    found = means.reduce()
    assert found["a"] == 3.0
    assert found["b"] != found["b"]
    assert means.reduce() == {}


class Spoiled(AffineModel):
    """Decodes the second sample of a batch to NaN."""

    def decode(self, x):
        pixels = super().decode(x)
        pixels[1:2] = float("nan")
        return pixels


def test_a_sample_that_is_not_finite_is_named_and_does_not_count():
    batch = PromptBatch(list(WORDS[:3]), [0, 1, 2])
    expected = align().generate(batch).rewards
    with pytest.warns(UserWarning, match=r"found NaN or infinity in sample 1 \('one'\); these samples do not count"):
        prediction = align(model=Spoiled()).predict_step(batch, 0)
    assert prediction.rewards.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(prediction.rewards[[0, 2]], expected[[0, 2]])


def test_a_rank_without_a_sample_predicts_nothing():
    module = align()
    assert module.predict_step(PromptBatch([], []), 0).prompts == []
    assert module.validation_step(PromptBatch([], []), 0)["prompts"] == []


def test_the_noise_of_a_sample_is_that_of_its_prompt_and_number():
    """With two samples per prompt, number 5 is sample 1 of prompt 2, as in an evaluation."""
    from rlr.seeding import Stream, spawn

    module = align()
    data = Prompts(val=list(WORDS[:3]), evaluation_samples=2)
    module._trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module._trainer.datamodule = data
    (*_, last) = [seed for batch in data.val_dataloader() for seed in module.seeds(batch)]
    assert last == spawn(0, Stream.EVALUATION, 2, 1)
