"""The average is the formula's; it is looked at, kept and resumed; training never notices."""

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from rlr.callbacks import EMA, Checkpointing, SafeCheckpointIO, ema_weights
from rlr.data import Prompts
from tests.modules.toy import WORDS, AffineModel, Replay, align, run, weights


def data():
    return Prompts(list(WORDS), val=list(WORDS[:3]), batch_size=4)


class Trace(Callback):
    """Keeps the weights after every update, and those that validation, test and prediction see."""

    def __init__(self):
        self.after, self.seen = [], []

    def on_train_start(self, trainer, pl_module):
        self.after.append(weights(pl_module))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == len(self.after):
            self.after.append(weights(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.seen.append(weights(pl_module))

    def on_test_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.seen.append(weights(pl_module))

    on_predict_batch_start = on_test_batch_start


def flat(average):
    return torch.cat([value.flatten() for value in average.values()])


def expected(trace, ema):
    average = trace.after[0].clone()
    for k, theta in enumerate(trace.after[1:], 1):
        beta = min(ema.decay, (1 + k) / (10 + k)) if ema.warmup else ema.decay
        average = beta * average + (1 - beta) * theta
    return average


def train(steps, *callbacks, module=None, **settings):
    module = module or align()
    settings = {"val_check_interval": 1.0, "limit_val_batches": 0, **settings}
    return module, run(module, data(), steps, callbacks=list(callbacks), **settings)


@pytest.mark.parametrize(("decay", "warmup"), [(0.9, True), (0.3, True), (0.9, False), (0.0, False)])
def test_is_the_formula(decay, warmup):
    ema, trace = EMA(decay, warmup), Trace()
    train(8, ema, trace, module=align(accumulate=2))
    assert ema.updates == 8
    torch.testing.assert_close(flat(ema.average), expected(trace, ema))
    assert (flat(ema.average) - trace.after[0]).norm() > 0.01


def test_training_goes_on_with_the_weights_themselves():
    watched, _ = train(5, EMA(0.9), limit_val_batches=1.0)
    alone, _ = train(5)
    assert torch.equal(weights(watched), weights(alone))


@pytest.mark.parametrize("inference", [True, False])
def test_validation_sees_the_average_and_leaves_no_trace(inference):
    ema, trace = EMA(0.5), Trace()
    module, _ = train(4, trace, ema, limit_val_batches=1.0, inference_mode=inference)
    torch.testing.assert_close(trace.seen[-1], flat(ema.average))
    assert torch.equal(weights(module), trace.after[-1])
    assert not torch.equal(trace.seen[-1], trace.after[-1])


def test_skipped_updates_do_not_count():
    class Spoilt:
        calls = 0

        def __call__(self, loss):
            self.calls += 1
            return loss * float("nan") if self.calls in (2, 3) else loss

    ema, trace = EMA(0.9), Trace()
    with pytest.warns(UserWarning, match="not finite"):
        train(4, ema, trace, module=align(estimator=Replay(spoil=Spoilt())))
    assert ema.updates == 4
    torch.testing.assert_close(flat(ema.average), expected(trace, ema))


def test_the_weights_come_back_after_an_exception():
    ema = EMA(0.5)
    module, trainer = train(3, ema)
    own = weights(module)

    def fail():
        with ema_weights(trainer, module), ema_weights(trainer, module):
            assert torch.equal(weights(module), flat(ema.average))
            raise RuntimeError("within")

    with pytest.raises(RuntimeError, match="within"):
        fail()
    assert torch.equal(weights(module), own)


def test_the_weights_come_back_when_validation_fails():
    class Failing(Trace):
        def on_validation_batch_end(self, trainer, pl_module, *args):
            raise RuntimeError("validation")

    trace, module = Failing(), align()
    with pytest.raises(RuntimeError, match="validation"):
        train(4, EMA(0.5), trace, module=module, limit_val_batches=1.0)
    assert len(trace.seen) == 1
    assert torch.equal(weights(module), trace.after[-1])


def test_nothing_is_averaged_once_training_is_over():
    ema = EMA(0.5)
    _, trainer = train(2, ema)
    before = flat(ema.average)
    trainer.optimizers[0].step()
    assert torch.equal(flat(ema.average), before)


# ---------------------------------------------------------------- checkpoints


def saving(folder):
    return {"enable_checkpointing": True, "plugins": [SafeCheckpointIO()]}, Checkpointing(1, str(folder))


def saved(tmp_path, steps, *callbacks, **further):
    settings, checkpointing = saving(tmp_path)
    return train(steps, *callbacks, checkpointing, **settings, **further)[0]


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, part, resumed = EMA(0.9), EMA(0.9), EMA(0.9)
    one = saved(tmp_path / "whole", 7, whole)
    saved(tmp_path / "part", 3, part)
    two = saved(tmp_path / "part", 7, resumed, ckpt_path=tmp_path / "part" / "last.ckpt")
    assert torch.equal(flat(resumed.average), flat(whole.average))
    assert torch.equal(weights(two), weights(one))
    assert resumed.updates == whole.updates == 7
    assert not torch.equal(flat(part.average), flat(whole.average))


def test_a_checkpoint_holds_both(tmp_path):
    ema = EMA(0.9)
    module = saved(tmp_path, 3, ema)
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert torch.equal(checkpoint["state_dict"]["weight"], module.chain.model.weight)
    assert torch.equal(checkpoint["callbacks"]["EMA"]["average"]["weight"], ema.average["weight"])


def look(stage, module, *callbacks, ckpt_path=None):
    silent = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(**silent, callbacks=list(callbacks), plugins=[SafeCheckpointIO()])
    getattr(trainer, stage)(module, datamodule=data(), ckpt_path=ckpt_path)
    return trainer


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_other_stages_use_the_average_of_the_checkpoint(tmp_path, stage):
    ema, trace, module = EMA(0.9), Trace(), align()
    own = saved(tmp_path, 3, ema)
    look(stage, module, trace, EMA(0.9), ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(trace.seen[0], flat(ema.average))
    assert torch.equal(weights(module), weights(own))


def test_a_checkpoint_without_an_average(tmp_path):
    own, trace = saved(tmp_path, 2), Trace()
    with pytest.warns(UserWarning, match=r"last.ckpt holds no EMA, so the trained weights themselves are used"):
        look("test", align(), trace, EMA(), ckpt_path=tmp_path / "last.ckpt")
    assert torch.equal(trace.seen[0], weights(own))


def test_an_average_of_other_weights_is_refused(tmp_path):
    ema = EMA(0.9)
    saved(tmp_path, 2, ema)
    state = ema.state_dict()
    other = EMA(0.9)
    other.load_state_dict({**state, "average": {"weight": state["average"]["weight"]}})
    with pytest.raises(ValueError, match="the EMA of the checkpoint is not of the trained weights of this AffineModel"):
        look("test", align(model=AffineModel()), other)


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decays_that_make_no_sense(decay):
    with pytest.raises(ValueError, match=rf"decay is in \[0, 1\), and {decay} is not"):
        EMA(decay)
