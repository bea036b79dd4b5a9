"""The trainer on prompts: several processes, fewer prompts than processes, and runs that are resumed elsewhere."""

import json

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from rlr.data import Prompts

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*")

LETTERS = "abcdefghijklmnopqrstuvwx"


class Recorder(LightningModule):
    """Writes down the batches that it gets, and the number of all samples that the ranks got together."""

    def __init__(self, folder) -> None:
        super().__init__()
        self.folder = folder
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[list[str]] = []

    def setup(self, stage: str) -> None:
        torch.set_num_threads(1)  # a forked process has none of its parent's threads

    def training_step(self, batch, batch_idx: int) -> Tensor:
        self.batches.append(batch.prompts)
        return self.weight

    def validation_step(self, batch, batch_idx: int) -> None:
        self.batches.append(batch.prompts)

    test_step = predict_step = validation_step

    def on_validation_epoch_end(self) -> None:
        self.total = int(self.trainer.strategy.reduce(torch.tensor(sum(map(len, self.batches))), reduce_op="sum"))

    on_test_epoch_end = on_predict_epoch_end = on_validation_epoch_end

    def on_fit_end(self) -> None:
        self.total = 0
        self.teardown_()

    def on_validation_end(self) -> None:
        if not self.trainer.training:
            self.teardown_()

    on_test_end = on_predict_end = on_validation_end

    def teardown_(self) -> None:
        path = self.folder / f"{self.trainer.state.fn.value}_{self.trainer.global_rank}.json"
        path.write_text(json.dumps([self.batches, self.total]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def trainer(folder, world: int = 1, **settings) -> Trainer:
    return Trainer(
        accelerator="cpu",
        devices=world,
        strategy="ddp_fork" if world > 1 else "auto",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def run(command: str, folder, data: Prompts, world: int, ckpt_path=None, **settings):
    """The batches of each rank, and the number of samples that each rank logged."""
    module = Recorder(folder)
    getattr(trainer(folder, world, **settings), command)(module, datamodule=data, ckpt_path=ckpt_path)
    found = [json.loads((folder / f"{command}_{rank}.json").read_text()) for rank in range(world)]
    return [batches for batches, _ in found], {total for _, total in found}


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
@pytest.mark.parametrize(("prompts", "shares"), [("a", [[["a"]], []]), ("abc", [[["a"], ["c"]], [["b"]]])])
def test_ranks_without_a_sample_wait(tmp_path, command, prompts, shares):
    data = Prompts(val=list(prompts), batch_size=1)
    assert run(command, tmp_path, data, 2, enable_checkpointing=False) == (shares, {len(prompts)})


@pytest.mark.parametrize(("size", "world"), [(4, 1), (1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("updates", [3, 9, 14])
def test_a_run_goes_on_with_the_next_unseen_prompt_elsewhere(tmp_path, size, world, updates):
    """Of 24 prompts, batches of 2 on one process; resumed with others, in the same pass or in a later one."""
    module = Recorder(tmp_path)
    one = trainer(tmp_path, max_steps=updates, max_epochs=-1, enable_checkpointing=True)
    one.fit(module, datamodule=Prompts(list(LETTERS), batch_size=2, shuffle=False))
    one.save_checkpoint(tmp_path / "some.ckpt")
    data = Prompts(list(LETTERS), batch_size=size, shuffle=False)
    more = 9
    settings = {"max_steps": updates + more, "max_epochs": -1, "enable_checkpointing": False}
    shares, _ = run("fit", tmp_path, data, world, tmp_path / "some.ckpt", **settings)
    read = [letter for batches in zip(*shares, strict=True) for batch in batches for letter in batch]
    start = 2 * updates
    assert read == [LETTERS[i % 24] for i in range(start, start + size * world * more)]


def test_validate_without_validation_prompts_says_so_and_fit_does_without(tmp_path):
    data = Prompts(list("ab"))
    with pytest.raises(ValueError, match=r"Prompts has no prompts for 'val'; set data.init_args.val"):
        run("validate", tmp_path, data, 1, enable_checkpointing=False)
    shares, _ = run("fit", tmp_path, data, 1, enable_checkpointing=False, max_steps=2, max_epochs=-1)
    assert [len(batches) for batches in shares] == [2]
