"""A checkpoint is whole or not there; what is read is what was written, or refused in a sentence."""

import errno
import functools
import itertools
import os
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger

from rlr.callbacks import Checkpointing, SafeCheckpointIO
from rlr.callbacks.checkpointing import OnWrite
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


def resume(module, path, steps=4, **settings):
    return run(module, prompts(), steps, ckpt_path=str(path), plugins=[SafeCheckpointIO()], **settings)


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
    assert state["estimator"] == {"rounds": 3}
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
    with (
        pytest.warns(UserWarning, match="not finite"),
        pytest.raises(FloatingPointError, match="the weights of the last"),
    ):
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
    with pytest.raises(
        ValueError,
        match=r"foreign.ckpt is no checkpoint of this .* got one of another module",
    ):
        resume(align(), path)


@pytest.mark.parametrize(
    ("change", "stated"),
    [
        (lambda s: s.pop("bias"), r"bias is missing \(1 such\)"),
        (lambda s: s.update(extra=torch.ones(1)), r"extra is foreign \(1 such\)"),
        (lambda s: s.update(bias=torch.ones(3)), r"bias has another shape \(1 such\)"),
    ],
)
def test_a_checkpoint_of_other_weights(trained, tmp_path, change, stated):
    module = align()
    before = weights(module)
    path = altered(trained, tmp_path, lambda c: change(c["state_dict"]))
    with pytest.raises(
        ValueError, match=f"foreign.ckpt does not hold the trained weights of this AffineModel: {stated}"
    ):
        resume(module, path)
    assert torch.equal(weights(module), before)


def test_weights_only_is_all_that_is_asked_of_the_reader(trained):
    module = align()
    trainer = resume(module, trained[1], 3)
    assert trainer.global_step == 3
    assert torch.equal(weights(module), weights(trained[0]))


# ---------------------------------------------------------------- the folder


def go_on(root, steps, callback, **settings):
    """Trains with ``ckpt_path="last"`` in a folder of results with a logger, as the command line does."""
    logger = CSVLogger(root, "logs")
    settings = {"ckpt_path": "last", **settings}
    return run(
        align(),
        prompts(),
        steps,
        callbacks=[callback],
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=True,
        default_root_dir=str(root),
        logger=logger,
        **settings,
    )


def test_without_a_folder_of_its_own_it_writes_to_the_folder_of_the_run(tmp_path):
    go_on(tmp_path, 2, Checkpointing(1), ckpt_path=None)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.ckpt")] == ["last.ckpt"]
    resumed = go_on(tmp_path, 3, Checkpointing(1))
    assert resumed.ckpt_path == str(tmp_path / "last.ckpt")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["alignment"]["progress"]["updates"] == 3
    # another version of the logger's files, the same folder of checkpoints
    assert len(list((tmp_path / "logs").iterdir())) == 2
    assert len(list(tmp_path.rglob("*.ckpt"))) == 1


def test_last_without_a_checkpoint_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no last\.ckpt in .*; leave it out to begin a run") as caught:
        go_on(tmp_path, 1, Checkpointing(1))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.ckpt"))


def test_last_elsewhere_in_the_folder_is_an_error_that_names_it(tmp_path):
    other = tmp_path / "logs" / "version_0" / "checkpoints" / "last.ckpt"
    other.parent.mkdir(parents=True)
    other.touch()
    with pytest.raises(FileNotFoundError, match=r"there is no last\.ckpt in .*: set --ckpt_path to it") as caught:
        go_on(tmp_path, 1, Checkpointing(1))
    assert str(other) in str(caught.value)


def test_one_of_two_folders_is_enough_for_last(tmp_path):
    one, two = Checkpointing(2, str(tmp_path / "one")), Checkpointing(1, str(tmp_path / "two"))
    go_on(tmp_path, 1, two, ckpt_path=None)
    for callbacks in ([one, two], [two, one]):
        trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=str(tmp_path))
        trainer.callbacks = callbacks
        found = {path for callback in callbacks for path in callback._find_last_checkpoints(trainer)}
        assert found == {str(tmp_path / "two" / "last.ckpt")}


# ---------------------------------------------------------------- values of other types


def leaves(value, *place):
    """The places of all values in nested dictionaries and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*place, key)
        yield from leaves(inner, *place, key)


def at(value, place):
    return functools.reduce(lambda inner, key: inner[key], place, value)


def put(checkpoint, place, value):
    at(checkpoint, place[:-1])[place[-1]] = value


LIGHTNING = ("epoch", "global_step", "state_dict", "loops", "callbacks", "optimizer_states")
"""What is checked before anything is restored."""


def outcome(path, out):
    """The weights one update after resuming, or the error."""
    module = align()
    try:
        resume(module, path, 4, callbacks=[Checkpointing(1, str(out))], enable_checkpointing=True)
    except Exception as error:
        return error
    return weights(module)


def is_sentence(error):
    return isinstance(error, ValueError) and "foreign.ckpt" in str(error) and "\n" not in str(error)


OTHERS = (None, "text", {}, [None])
"""Values of types that a checkpoint has in other places."""


def places_of(whole):
    """The places of the values that are checked; what is inside a loader's own state, the loader checks."""
    return [place for place in leaves(whole) if place[0] in LIGHTNING and "combined_loader" not in place[:-2]]


def kind_of(whole, place):
    """Where a place is, the last name on the way to it, and the type of what is there."""
    names = [name for name in place if isinstance(name, str)]
    return names[0], names[-1], type(at(whole, place)).__name__


def others(whole, place):
    """The values of other types; an empty dictionary is of the type of another one."""
    return [value for value in OTHERS if not (value == {} and isinstance(at(whole, place), dict))]


def trials(whole):
    """A value for each place, the values in turn; and in a place of each kind those whose turn did not come."""
    kinds = {}
    for place in places_of(whole):
        kinds.setdefault(kind_of(whole, place), []).append(place)
    for places in kinds.values():
        values = others(whole, places[0])
        yield from zip(places, itertools.cycle(values), strict=False)
        yield from ((places[-1], value) for value in values[len(places) :])


def wrongly_taken(trained, folder, tried):
    """The trials that end in something else than a sentence or the weights of the whole checkpoint."""
    expected, wrong = outcome(trained[1], folder / "out"), []
    for place, value in tried:
        checkpoint = torch.load(trained[1], weights_only=True)
        put(checkpoint, place, value)
        found = outcome(foreign(folder, checkpoint), folder / "out")
        if not (is_sentence(found) if isinstance(found, Exception) else torch.equal(found, expected)):
            wrong.append((place, value, found))
    return wrong


def test_a_value_of_another_type_is_a_sentence_or_of_no_consequence(trained, tmp_path):
    """Some value in every place, and every value in a place of each kind."""
    whole = torch.load(trained[1], weights_only=True)
    tried, places = list(trials(whole)), places_of(whole)
    assert len(places) > 80
    assert {place for place, _ in tried} == set(places)
    every = {(kind_of(whole, place), str(value)) for place in places for value in others(whole, place)}
    assert {(kind_of(whole, place), str(value)) for place, value in tried} == every
    assert not wrongly_taken(trained, tmp_path, tried)


@pytest.mark.slow
@pytest.mark.parametrize("value", OTHERS, ids=str)
def test_no_place_takes_a_value_of_another_type(trained, tmp_path, value):
    whole = torch.load(trained[1], weights_only=True)
    tried = [(place, value) for place in places_of(whole) if value in others(whole, place)]
    assert not wrongly_taken(trained, tmp_path, tried)


def test_the_law_of_types_can_fail(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("rlr.callbacks.checkpointing.check_training_state", lambda *args: None)
    checkpoint = torch.load(trained[1], weights_only=True)
    put(checkpoint, ("optimizer_states", 0, "state", 0, "exp_avg"), None)
    assert not is_sentence(outcome(foreign(tmp_path, checkpoint), tmp_path / "out"))


class Follower(Callback, OnWrite):
    """Counts the written checkpoints, and keeps the weights of each."""

    def __init__(self):
        self.seen = []

    def on_write(self, trainer, pl_module):
        self.seen.append((trainer.global_step, weights(pl_module)))


def test_callbacks_follow_written_checkpoints_and_not_copies_in_memory(tmp_path):
    follower, settings = Follower(), saving(tmp_path, every=2)
    settings["callbacks"].append(follower)
    run(align(), prompts(), 5, **settings)
    assert [step for step, _ in follower.seen] == [2, 4, 5]


def test_after_an_interrupt_they_see_the_weights_of_the_written_state(tmp_path):
    follower, settings = Follower(), saving(tmp_path, every=50)
    settings["callbacks"].append(follower)
    module = align()

    def torn(*arguments, **named):
        with torch.no_grad():
            for weight in module.weights:
                weight += 1
        raise KeyboardInterrupt

    class Interrupt(Callback):
        def on_train_batch_start(self, trainer, pl_module, *arguments):
            if trainer.global_step == 2:
                torn()

    settings["callbacks"].append(Interrupt())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(module, prompts(), 5, **settings)
    ((_, seen),) = follower.seen
    written = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(seen, torch.cat([written[name].flatten() for name in module.chain.model.trainable]))
    assert not torch.equal(seen, weights(module))
