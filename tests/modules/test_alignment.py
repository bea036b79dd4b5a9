import math
import pickle
import warnings
import weakref

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn

from rlr.callbacks import SafeCheckpointIO
from rlr.chain import Chain
from rlr.data import Prompts
from rlr.data.stream import PromptBatch
from rlr.estimators import DDPO, FirstOrder, HalfOrder, RoundStatistics
from rlr.estimators.base import Estimator
from rlr.models import FullWeights
from rlr.modules import Alignment, ImageAlignment
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from tests.modules.toy import AffineModel, Hard, Level, Replay, align, prompts, run, weights


def double(**changes):
    return align(model=AffineModel(dtype="float64", frozen=False), **changes)


def test_training_raises_the_reward():
    module = align()
    before = align().generate(PromptBatch(["one", "six", "seven"], [0, 1, 2])).rewards.mean()
    run(module, prompts(), 30)
    assert module.generate(PromptBatch(["one", "six", "seven"], [0, 1, 2])).rewards.mean() > before + 0.1


def test_one_step_is_the_gradient_of_the_mean_reward():
    """Against autograd through the same chain, written out by hand."""
    module = align(optimizer=lambda w: torch.optim.SGD(w, 1.0), estimator=Replay(steps=4))
    data = prompts(3, shuffle=False)
    draws = []
    draw = module.chain.draw
    module.chain.draw = lambda seeds: draws.append(draw(seeds)) or draws[-1]
    before = weights(module)
    run(module, data)
    moved = weights(module) - before

    twin = AffineModel().eval()
    chain, x = Chain(twin, DDIM(4, eta=1.0)), draws[0][4]
    condition = twin.encode(["zero", "one", "two"])
    for t in (4, 3, 2, 1):
        x = chain.transition(x, t, condition).sample(draws[0][t - 1])
    Level()(twin.decode(x), ["zero", "one", "two"]).mean().backward()
    expected = torch.cat([w.grad.flatten() for w in twin.trainable.values()])
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


def test_accumulating_two_batches_equals_one_of_twice_the_size():
    one, two = double(), double(accumulate=2)
    run(one, prompts(4), 3, precision="64-true")
    run(two, prompts(2), 3, precision="64-true")
    assert two.progress.batches == 6
    torch.testing.assert_close(weights(one), weights(two), atol=1e-10, rtol=0)


def test_nothing_is_learned_or_logged_before_a_round_is_complete():
    estimator = Replay()
    module = align(estimator=estimator, accumulate=3)
    before = weights(module)
    trainer = run(module, prompts(), -1, limit_train_batches=2, max_epochs=1)
    assert torch.equal(weights(module), before)
    assert (estimator.rounds, trainer.global_step, dict(trainer.callback_metrics)) == (0, 0, {})
    assert all(weight.grad is None for weight in module.weights)
    assert (module.progress.batches, module.progress.updates, module.progress.reward_calls) == (2, 0, 0)


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_a_round_is_logged_once_and_whole(accumulate):
    module, rollouts, logged = align(accumulate=accumulate), [], []
    log, sample = module.log, module._sample

    def noting(name, value, **more):
        if name == "reward/mean":
            logged.append(float(value))
        log(name, value, **more)

    module.log = noting
    module._sample = lambda *args: rollouts.append(sample(*args)) or rollouts[-1]
    run(module, prompts(), 2)
    assert len(rollouts) == 2 * accumulate
    rewards = torch.cat([rollout.scores.values for rollout in rollouts]).view(2, -1)
    assert logged == pytest.approx(rewards.mean(1).tolist())


def test_a_term_is_gone_before_the_next_is_built():
    held: list[weakref.ref] = []

    def seen(loss):
        assert all(ref() is None for ref in held)
        held.append(weakref.ref(loss))

    run(align(estimator=Replay(names=("a", "b", "c"), seen=seen)), prompts())
    assert len(held) == 3


def test_a_kept_term_is_noticed():
    """The law above must be able to fail: an estimator that hoards its losses is caught by it."""
    held, hoard = [], []

    def seen(loss):
        held.append(weakref.ref(loss))
        hoard.append(loss)

    run(align(estimator=Replay(names=("a", "b"), seen=seen)), prompts())
    assert all(ref() is not None for ref in held)


@pytest.mark.parametrize("log_terms", [True, False])
def test_what_is_logged_does_not_change_the_weights(log_terms):
    module, plain = align(estimator=Replay(names=("a", "b", "a")), log_terms=log_terms), align(estimator=Replay())
    trainer = run(module, prompts(), 1)
    run(plain, prompts(), 1)
    logged = trainer.logged_metrics
    assert ("gradient/a" in logged) == log_terms
    # three equal terms are one of thrice the size, and Adam does not see the size
    torch.testing.assert_close(weights(module), weights(plain), atol=1e-5, rtol=0)


def test_logged_numbers():
    module = align(estimator=Replay(names=("a", "b", "a")))
    logged = run(module, prompts(4), 1).logged_metrics
    assert logged["gradient/a"] == pytest.approx(2 * logged["gradient/b"].item(), rel=1e-4)
    assert logged["gradient/total"] == pytest.approx(3 * logged["gradient/b"].item(), rel=1e-4)
    assert logged["cosine/a_b"] == pytest.approx(1, abs=1e-5)
    assert logged["samples"] == 4
    assert logged["reward_calls"] == 12
    for section in ("rollout", "a", "b", "optimizer"):
        assert logged[f"seconds/{section}"] > 0
        assert logged[f"memory_mib/{section}"] > 1


def test_reward_statistics_are_those_of_the_round():
    module, seen = align(), []
    original = module.objective.warn_if_constant
    module.objective.warn_if_constant = lambda rewards: seen.append(rewards) or original(rewards)
    logged = run(module, prompts(4), 1).logged_metrics
    assert logged["reward/mean"] == pytest.approx(seen[0].mean().item())
    assert logged["reward/std"] == pytest.approx(seen[0].std().item())


def test_clipping_scales_the_gradient_to_the_norm():
    unclipped = align(optimizer=lambda w: torch.optim.SGD(w, 1.0))
    soft = align(optimizer=lambda w: torch.optim.SGD(w, 1.0), clip_norm=1e-3)
    start = weights(unclipped)
    run(unclipped, prompts())
    run(soft, prompts())
    free, clipped = weights(unclipped) - start, weights(soft) - start
    assert free.norm() > 2e-3
    assert clipped.norm() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(clipped / clipped.norm(), free / free.norm(), atol=1e-3, rtol=0)


def test_warm_up_is_linear_in_updates():
    rates = rates_of(6, warmup=4, accumulate=2)
    assert rates == pytest.approx([0.0125, 0.025, 0.0375, 0.05, 0.05, 0.05])


def rates_of(steps: int, **settings) -> list[float]:
    module, rates = align(**settings), []
    step = module.on_before_optimizer_step
    module.on_before_optimizer_step = lambda o: rates.append(o.param_groups[0]["lr"]) or step(o)
    run(module, prompts(), steps)
    return rates


def test_decay_is_linear_in_the_last_updates():
    assert rates_of(6, decay_steps=3, accumulate=2) == pytest.approx([0.05, 0.05, 0.05, 0.0375, 0.025, 0.0125])
    assert rates_of(5, warmup=2, decay_steps=4) == pytest.approx([0.025, 0.04, 0.03, 0.02, 0.01])
    assert rates_of(3, decay_steps=99) == rates_of(3, decay_steps=3)


def test_decay_needs_an_end():
    with pytest.raises(
        ValueError, match=r"decay_steps=3 counts from the end of the run, and trainer\.max_steps is not set"
    ):
        run(align(decay_steps=3), prompts(), -1, max_epochs=1)
    # a run of no updates has an end
    assert run(align(decay_steps=3), prompts(), 0).global_step == 0


def test_a_copy_by_pickle_trains_its_own_weights():
    """Strategies that spawn processes, such as ``ddp_spawn``, pickle the module."""
    module = align()
    copy = pickle.loads(pickle.dumps(module))
    start = weights(module)
    run(copy, prompts())
    assert torch.equal(weights(module), start)
    run(module, prompts())
    assert not torch.equal(weights(module), start)
    assert torch.equal(weights(copy), weights(module))


def test_only_trainable_weights_reach_the_optimizer():
    module = align()
    run(module, prompts())
    held = [w for group in module.optimizers().param_groups for w in group["params"]]
    assert {id(w) for w in held} == {id(w) for w in module.chain.model.trainable.values()}
    assert all(w.grad is None for w in module.chain.model.base.parameters())


def test_all_parts_stay_in_eval_mode():
    module = align()
    module.train()
    assert module.training
    assert not any(part.training for part in module.children())
    assert not any(part.training for part in module.chain.model.modules())


def test_a_sample_has_its_own_noise_in_any_batch():
    module, other = align(), align(seed=1)
    one = module.generate(PromptBatch(["one", "two", "three"], [5, 6, 7])).samples[1]
    again = module.generate(PromptBatch(["two"], [6]))
    torch.testing.assert_close(one, again.samples[0], rtol=0, atol=1e-6)
    assert (one - other.generate(PromptBatch(["two"], [6])).samples[0]).abs().max() > 1e-3


def test_training_noise_never_repeats():
    module, seeds = align(), []
    draw = module.chain.draw
    module.chain.draw = lambda s: seeds.extend(s) or draw(s)
    run(module, prompts(4), 12)
    assert len(seeds) == len(set(seeds)) == 48


def test_global_generators_are_not_touched():
    module, data = align(), prompts()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    module.generate(PromptBatch(["two"], [6]))
    run(module, data, 2)
    assert torch.equal(state, torch.get_rng_state())


# ---------------------------------------------------------------- precision


def test_bfloat16_autocast_runs_and_agrees_roughly():
    full, mixed = align(), align()
    run(full, prompts(), 3)
    start = weights(align())
    run(mixed, prompts(), 3, precision="bf16-mixed")
    assert not torch.equal(weights(full), weights(mixed))
    cosine = torch.cosine_similarity(weights(full) - start, weights(mixed) - start, dim=0)
    assert cosine > 0.95


def float16(scale: float) -> MixedPrecision:
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=scale))


def test_float16_clips_and_logs_unscaled_gradients():
    module, plain = align(clip_norm=1e-3), align(clip_norm=1e-3)
    logged = run(module, prompts(), plugins=[float16(2.0**10)]).logged_metrics
    expected = run(plain, prompts()).logged_metrics
    for name in ("gradient/total", "gradient/first_order"):
        assert logged[name] == pytest.approx(expected[name].item(), rel=0.05)


def test_float16_overflow_lowers_the_scale_and_is_no_failure():
    plugin = float16(2.0**40)
    plugin.scaler._backoff_factor = 2.0**-10
    module = align(max_bad_steps=1, estimator=Replay(spoil=lambda loss: loss * 2.0**90))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*not finite.*")
        before = weights(module)
        run(module, prompts(), 1, plugins=[plugin])
    assert torch.equal(weights(module), before)
    assert plugin.scaler.get_scale() == 2.0**30
    assert module.updater.failures == 0


def lora(**settings):
    return align(model=Tiny(), reward=Brightness(), sampler=DDIM(2), estimator=FirstOrder(1), lr=1e-4, **settings)


@pytest.fixture(scope="module")
def half():
    """A LoRA after three updates in bf16-true, its weights before, and those after the same updates in float32."""
    found = []
    for precision in ("bf16-true", "32-true"):
        module = lora()
        before = {name: weight.detach().clone() for name, weight in module.chain.model.trainable.items()}
        run(module, Prompts(["a red circle", "two blue squares"], batch_size=2, shuffle=False), 3, precision=precision)
        found.append((module, before))
    return found


def test_trained_weights_stay_float32_in_a_half_network(half):
    module, before = half[0]
    model = module.chain.model
    assert {weight.dtype for weight in model.trainable.values()} == {torch.float32}
    assert {weight.dtype for weight in model.parameters() if not weight.requires_grad} == {torch.bfloat16}
    assert all(state["exp_avg"].dtype == torch.float32 for state in module.optimizers().state.values())
    for name, weight in model.trainable.items():
        # an entry of B has no gradient before A has one, and Adam moves every other one by about lr
        moved = (weight - before[name]).abs()
        assert (moved > 0).float().mean() > 0.99, name
    one, other = (weights(m) - torch.cat([w.flatten() for w in b.values()]) for m, b in half)
    assert torch.cosine_similarity(one, other, dim=0) > 0.8


def test_rounded_weights_would_be_noticed(half):
    """The law above can fail: in bfloat16, most updates of a weight of 0.25 are lost."""
    (module, before), _ = half
    name = next(name for name in before if "lora_A" in name)
    rounded = module.chain.model.trainable[name].bfloat16()
    assert (rounded != before[name].bfloat16()).float().mean() < 0.5


def test_a_resumed_run_in_a_half_network_equals_an_uninterrupted_one(half, tmp_path):
    (whole, _), settings = half[0], {"precision": "bf16-true", "plugins": [SafeCheckpointIO()]}
    data = {"batch_size": 2, "shuffle": False}
    trainer = run(lora(), Prompts(["a red circle", "two blue squares"], **data), 2, precision="bf16-true")
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed = lora()
    run(
        resumed,
        Prompts(["a red circle", "two blue squares"], **data),
        3,
        ckpt_path=str(tmp_path / "last.ckpt"),
        **settings,
    )
    assert torch.equal(weights(resumed), weights(whole))


def test_noises_are_those_of_float32_in_a_half_step():
    draw = align().chain.draw
    expected = draw([1, 2])
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does in a step of such a precision
    try:
        found = draw([1, 2])
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_full_weights_in_a_half_network_are_refused(precision):
    module = align(model=Tiny(trainable=FullWeights("attn2")), reward=Brightness(), sampler=DDIM(2))
    with pytest.raises(
        ValueError, match=f"Tiny trains weights of the network itself.* {precision[:-4]}mixed, or train a LoRA"
    ):
        run(module, Prompts(["a red circle"], batch_size=2), 1, precision=precision)


# ---------------------------------------------------------------- guards


class Faulty:
    """Spoils the loss of the terms whose numbers are given, in value (and gradient) or in gradient alone."""

    def __init__(self, when, gradient_only=False):
        self.when, self.gradient_only, self.n = when, gradient_only, 0

    def __call__(self, loss):
        self.n += 1
        if self.n not in self.when:
            return loss
        return loss + ((loss - loss.detach()) ** 0.5).nan_to_num() if self.gradient_only else loss * math.nan


@pytest.mark.parametrize("gradient_only", [True, False])
@pytest.mark.parametrize("log_terms", [True, False])
def test_a_bad_update_is_named_and_skipped(gradient_only, log_terms):
    """Of the two updates here, the first one is spoiled in its second term: only the second one counts."""
    estimator = Replay(steps=3, names=("good", "bad"), spoil=Faulty({2}, gradient_only))
    module = align(estimator=estimator, log_terms=log_terms)
    what = "gradient" if gradient_only else "loss"
    with pytest.warns(UserWarning, match=f"the {what} of the bad term of steps t = 3 … 1 is not finite"):
        trainer = run(module, prompts(), 1)
    assert trainer.global_step == 1
    assert module.progress.batches == 2
    assert module.updater.failures == 0
    assert weights(module).isfinite().all()
    assert trainer.optimizers[0].state[module.weights[0]]["step"] == 1


def test_a_bad_batch_spoils_the_whole_accumulated_update():
    module = align(estimator=Replay(spoil=Faulty({1})), accumulate=2)
    with pytest.warns(UserWarning, match="not finite"):
        trainer = run(module, prompts(), 1)
    assert (trainer.global_step, module.progress.batches) == (1, 4)


def test_training_stops_after_too_many_bad_updates_in_a_row():
    module = align(estimator=Replay(spoil=Faulty({2, 4, 5, 6})), max_bad_steps=3)
    with (
        pytest.warns(UserWarning, match="not finite"),
        pytest.raises(FloatingPointError, match="this is update 3 in a row without a finite gradient"),
    ):
        run(module, prompts(), 9)
    assert module.progress.batches == 6
    assert weights(module).isfinite().all()


class Bad(Level):
    """Returns NaN for some prompts."""

    def __init__(self, *words: str) -> None:
        super().__init__()
        self.words = words

    def forward(self, samples, prompts):
        bad = torch.tensor([prompt in self.words for prompt in prompts])
        return super().forward(samples, prompts).where(~bad, torch.nan)


LEARNERS = {"first": Replay, "half": lambda: HalfOrder(2), "ddpo": lambda: DDPO(2, statistics=RoundStatistics())}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_reward_that_is_not_finite_is_named_with_its_prompt(name):
    """Of the two batches that alternate here, the second one is bad."""
    module = align(reward=Bad("five", "seven"), estimator=LEARNERS[name]())
    stated = r"the reward Bad returned scores that are not finite for 2 of 4 samples, the first of the prompt 'five'"
    with pytest.warns(UserWarning, match=stated + "; this update is skipped"):
        run(module, prompts(shuffle=False), 2 * module.estimator.updates_per_round)
    assert (module.progress.batches, module.updater.failures) == (3, 0)
    assert weights(module).isfinite().all()


@pytest.mark.parametrize("name", LEARNERS)
def test_a_bad_batch_spoils_its_whole_round(name):
    module = align(reward=Bad("five"), estimator=LEARNERS[name](), accumulate=2, max_bad_steps=2)
    before = weights(module)
    with (
        pytest.warns(UserWarning, match="1 of 4 samples, the first of the prompt 'five'; this update is skipped"),
        pytest.raises(
            FloatingPointError, match=r"1 of 4 samples, the first of the prompt 'five'; this is update 2 in a"
        ),
    ):
        run(module, prompts(shuffle=False), 9)
    assert torch.equal(weights(module), before)
    assert (module.progress.batches, module.progress.updates) == (4, 0)


class Cracked(AffineModel):
    """A decoder that returns NaN in a pixel of every sample whose first latent is positive."""

    def decode(self, x, frames=None):
        pixels = super().decode(x)
        bad = (x.flatten(1)[:, :1] > 0) & (torch.arange(12) == 0)
        return pixels.where(~bad.view_as(pixels), torch.nan)


class Forgiving(Level):
    """Scores a sample that is not finite like any other."""

    def __call__(self, samples, prompts):
        return self.forward(samples.nan_to_num(0.5), prompts)


@pytest.mark.parametrize("reward", [Level, Forgiving])
@pytest.mark.parametrize("name", LEARNERS)
def test_pixels_that_are_not_finite_are_named_with_their_decoder_and_prompt(name, reward):
    """Even if the reward scores them: a sample that is not finite counts nowhere."""
    module = align(model=Cracked(), reward=reward(), estimator=LEARNERS[name](), max_bad_steps=2)
    before = weights(module)
    stated = r"Cracked\.decode returned pixels that are not finite for \d+ of 32 samples, the first of the prompt '\w+'"
    with (
        pytest.warns(UserWarning, match=stated + "; this update is skipped"),
        pytest.raises(FloatingPointError, match=stated + "; this is update 2 in a row"),
    ):
        run(module, prompts(32), 20)
    assert torch.equal(weights(module), before)


def test_a_black_box_is_refused_by_an_estimator_that_backpropagates():
    with pytest.raises(ValueError, match=r"Replay .* Hard has no gradient; use a differentiable reward"):
        run(align(reward=Hard()), prompts())


def test_a_black_box_can_be_measured_whatever_the_estimator_needs():
    module = align(reward=Hard())
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False)
    (measured,) = trainer.validate(module, prompts(val=["one", "two"]), verbose=False)
    assert 0 <= measured["val/reward"] <= 1


def test_a_reward_that_lies_about_its_gradient_is_caught():
    class Liar(Hard):
        differentiable = True

    with pytest.raises(ValueError, match=r"first_order term of steps t = 2 … 1 has no gradient .* detaches"):
        run(align(reward=Liar()), prompts())


def test_a_model_without_trainable_weights_can_be_sampled_from_but_not_trained():
    module = align(model=AffineModel(trained=False))
    assert module.generate(PromptBatch(["two"], [6])).samples.isfinite().all()
    with pytest.raises(ValueError, match="AffineModel has no trainable weights; add a LoRA"):
        run(module, prompts())


def test_the_estimator_checks_the_chain():
    class Picky(Replay):
        def check(self, chain: Chain) -> None:
            raise ValueError(f"{chain.steps} steps do not suit")

    with pytest.raises(ValueError, match="4 steps do not suit"):
        align(estimator=Picky())


def test_an_estimator_without_terms():
    class Silent(Replay):
        def terms(self, rollout):
            return iter(())

    with pytest.raises(ValueError, match="yielded no term for an update; expected at least one"):
        run(align(estimator=Silent()), prompts())


@pytest.mark.parametrize(
    "wrong", [{"accumulate": 0}, {"warmup": -1}, {"decay_steps": -1}, {"max_bad_steps": 0}, {"log_kl_every": -1}]
)
def test_impossible_numbers(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"optimization\.{name}: expected at least [01], got {value}"):
        align(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"lr": math.inf},
        {"weight_decay": -1.0},
        {"betas": (0.9, 1.0)},
        {"clip_norm": 0.0},
        {"clip_norm": math.nan},
    ],
)
def test_numbers_that_would_stop_or_spoil_learning(wrong):
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=rf"optimization\.{name}: expected .*number"):
        align(**wrong)


# ---------------------------------------------------------------- evaluation


def test_validation_logs_the_mean_reward_of_fixed_samples():
    module = align()
    data = Prompts(["one"], val=["one", "two", "five"], batch_size=2, evaluation_samples=2)
    trainer = run(module, data, 0)
    # by now the module knows how many samples a prompt has
    expected = module.generate(PromptBatch(["one", "one", "two", "two", "five", "five"], list(range(6)))).rewards
    for _ in range(2):
        (metrics,) = trainer.validate(module, datamodule=data, verbose=False)
        assert metrics["val/reward"] == pytest.approx(expected.mean().item())
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    assert metrics["test/reward"] == pytest.approx(expected.mean().item())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_validation_between_batches_changes_nothing(accumulate):
    module, twin = align(accumulate=accumulate), align(accumulate=accumulate)
    run(module, Prompts(["one", "two"], val=["five"], batch_size=2), 3, val_check_interval=1)
    run(twin, Prompts(["one", "two"], batch_size=2), 3)
    assert torch.equal(weights(module), weights(twin))
    assert module.progress == twin.progress


def test_image_and_video_share_the_training_step():
    assert "training_step" not in vars(ImageAlignment)
    assert ImageAlignment.training_step is Alignment.training_step
    assert issubclass(Replay, Estimator)
    assert isinstance(align().reward, nn.Module)
