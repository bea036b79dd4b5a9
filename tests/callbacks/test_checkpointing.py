"""A checkpoint is whole or not there; what is read is what was written, or told apart from it in a sentence."""

import errno
import os
import warnings

import pytest
import torch

from rlr.callbacks import Checkpointing, SafeCheckpointIO
from rlr.io.atomic import write_whole
from tests.modules.toy import AffineModel, Replay, align, prompts, run, weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A module after three updates, and its checkpoint."""
    module, folder = align(), tmp_path_factory.mktemp("trained")
    run(module, prompts(), 3, **saving(folder))
    return module, folder / "last.ckpt"


def saving(folder, every=1, **settings):
    io = SafeCheckpointIO()
    callbacks = [Checkpointing(every, str(folder), **settings)]
    return {"enable_checkpointing": True, "callbacks": callbacks, "plugins": [io]}


def resume(module, path, steps=4):
    return run(module, prompts(), steps, ckpt_path=str(path), plugins=[SafeCheckpointIO()])


def test_holds_the_trained_weights_alone(trained):
    module, path = trained
    checkpoint = torch.load(path, weights_only=True)
    assert set(checkpoint["state_dict"]) == {"weight", "bias"}
    assert torch.equal(checkpoint["state_dict"]["weight"], module.chain.model.weight)
    assert path.stat().st_size < 30_000


def test_holds_what_a_resumed_run_needs(trained):
    module, path = trained
    state = torch.load(path, weights_only=True)["alignment"]
    assert state["progress"] == {**vars(module.progress)}
    assert state["progress"]["samples"] == 12
    assert state["estimator"] == {"updates": 3}
    assert set(state["random"]) == {"torch", "cuda", "numpy", "python"}


def test_keeps_one_file_a_write_if_asked_to(tmp_path):
    run(align(), prompts(), 5, **saving(tmp_path, every=2, keep=True))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "step=2.ckpt", "step=4.ckpt"]
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_says_nothing_about_manual_optimisation(tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*ModelCheckpoint.*")
        run(align(), prompts(), 2, **saving(tmp_path))
    assert (tmp_path / "last.ckpt").is_file()


def test_the_last_good_one_outlives_divergence(tmp_path):
    class Diverging:
        calls = 0

        def __call__(self, loss):
            self.calls += 1
            return loss if self.calls <= 2 else loss * float("nan")

    module = align(estimator=Replay(spoil=Diverging()), max_bad_steps=2)
    with pytest.warns(UserWarning, match="not finite"), pytest.raises(FloatingPointError, match="resume from the last"):
        run(module, prompts(), 9, **saving(tmp_path))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 2
    assert checkpoint["state_dict"]["weight"].isfinite().all()


# ---------------------------------------------------------------- writing


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failed_write_leaves_the_previous_file(tmp_path, monkeypatch, call, number):
    path, io = tmp_path / "last.ckpt", SafeCheckpointIO()
    io.save_checkpoint({"state_dict": {"w": torch.ones(3)}}, path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    fact = "the disk is full; make room" if number == errno.ENOSPC else "Input/output error; choose another folder"
    with pytest.raises(OSError, match=f"last.ckpt could not be written, for {fact} .* which is untouched"):
        io.save_checkpoint({"state_dict": {"w": torch.zeros(3)}}, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_full_disk_stops_training_in_one_sentence(tmp_path, monkeypatch):
    module, fsync, calls = align(), os.fsync, []

    def full_at_third(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full_at_third)
    with pytest.raises(OSError, match="the disk is full; make room and resume from the previous checkpoint"):
        run(module, prompts(), 9, **saving(tmp_path))
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_another_process_never_sees_half_a_file(tmp_path, monkeypatch):
    path, seen = tmp_path / "file", []
    write_whole(path, b"old")
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: seen.append(path.read_bytes()) or replace(a, b))
    write_whole(path, b"new and longer")
    assert (seen, path.read_bytes()) == ([b"old"], b"new and longer")


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_file_cut_short(trained, tmp_path, share):
    data = trained[1].read_bytes()
    path = tmp_path / "cut.ckpt"
    path.write_bytes(data[: int(share * len(data))])
    what = f"cut off after {len(path.read_bytes())} bytes" if share else "empty"
    with pytest.raises(ValueError, match=rf"cut.ckpt is {what}; resume from another checkpoint"):
        resume(align(), path)


def test_a_damaged_file(trained, tmp_path):
    data = bytearray(trained[1].read_bytes())
    data[60:400] = bytes(340)
    path = tmp_path / "damaged.ckpt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.ckpt (is damaged|holds Python objects)"):
        resume(align(), path)


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none.ckpt; check --ckpt_path"):
        resume(align(), tmp_path / "none.ckpt")


def foreign(tmp_path, content):
    path = tmp_path / "foreign.ckpt"
    torch.save(content, path)
    return path


def test_something_else_than_a_checkpoint(tmp_path):
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(
        ValueError, match=r"text.ckpt is a text file that begins with 'hello'; resume from another checkpoint"
    ):
        resume(align(), tmp_path / "text.ckpt")
    with pytest.raises(ValueError, match=r"foreign.ckpt is a PyTorch file but no training checkpoint"):
        resume(align(), foreign(tmp_path, {"w": torch.ones(1)}))
    with pytest.raises(ValueError, match=r"foreign.ckpt holds Python objects besides tensors"):
        resume(align(), foreign(tmp_path, {"state_dict": AffineModel()}))


def altered(trained, tmp_path, change):
    checkpoint = torch.load(trained[1], weights_only=True)
    change(checkpoint)
    return foreign(tmp_path, checkpoint)


def test_a_checkpoint_of_another_module(trained, tmp_path):
    path = altered(trained, tmp_path, lambda c: c.pop("alignment"))
    with pytest.raises(ValueError, match=r"foreign.ckpt is a checkpoint of another module than ImageAlignment"):
        resume(align(), path)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda s: s.pop("bias"), r"bias is missing \(1 such\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"extra is foreign \(1 such\)"),
        (lambda s: s.update(bias=torch.ones(3)), r"bias has another shape \(1 such\)"),
    ],
)
def test_a_checkpoint_of_other_weights(trained, tmp_path, change, told):
    module = align()
    before = weights(module)
    path = altered(trained, tmp_path, lambda c: change(c["state_dict"]))
    with pytest.raises(ValueError, match=f"foreign.ckpt does not hold the trained weights of this AffineModel: {told}"):
        resume(module, path)
    assert torch.equal(weights(module), before)


def test_weights_only_is_all_that_is_asked_of_the_reader(trained):
    module = align()
    trainer = resume(module, trained[1], 3)
    assert trainer.global_step == 3
    assert torch.equal(weights(module), weights(trained[0]))
