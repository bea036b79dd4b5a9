"""Estimated memory of training against measured memory, for the built-in model."""

import csv
from dataclasses import replace

import pytest
import torch

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.footprint.placeholder import Work
from rlr.analysis.footprint.training import Training
from rlr.analysis.measure import Storages
from rlr.chain import Chain
from rlr.estimators import DDPO, RLR, AlignProp, AllSteps, FirstOrder, HalfOrder, HalfOrderRLR, LookAhead, ZerothOrder
from rlr.estimators.base import Estimator
from rlr.models import FullWeights, Guidance
from rlr.modules.memory import Memory
from rlr.modules.optimization import Optimization
from rlr.objective import Objective
from rlr.rewards import Brightness, JPEGCompressibility
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from rlr.toy.rewards import TinyPickScore
from tests.models.families import covering
from tests.test_project import ROOT

TOLERANCE = 0.25
"""The largest error of an estimate, as a share of what is measured; those found are below 0.05, and 0.4 MiB."""
PROMPT = "a red circle left of a blue square"
STEPS, BATCH = 4, 2
AGAIN = Memory(checkpoint_steps=True)
SAVINGS = {
    "nothing": Memory(),
    "checkpoint_steps": AGAIN,
    "offload_activations": Memory(offload_activations=True),
    "both": Memory(checkpoint_steps=True, offload_activations=True),
}
"""What saves memory by its name in the recorded table."""

ESTIMATORS = {
    "FirstOrder(1)": lambda: FirstOrder(1),
    "FirstOrder(all)": lambda: FirstOrder(AllSteps()),
    "HalfOrder(1)": lambda: HalfOrder(1),
    "RLR": lambda: RLR(2),
    "HalfOrderRLR, look-ahead": lambda: HalfOrderRLR(2, None, control=LookAhead()),
    "DDPO": lambda: DDPO(1),
    "ZerothOrder": lambda: ZerothOrder(),
}

TABLE = {
    "DDPO": lambda: DDPO(1),
    "AlignProp, largest draw": lambda: AlignProp(0, 0),
    "full backpropagation": lambda: FirstOrder(AllSteps()),
    "DRaFT-1": lambda: FirstOrder(1),
    "RLR": lambda: RLR(4),
    "half-order RLR, one segment": lambda: HalfOrderRLR(4),
}
"""Methods of the recorded table by their names there."""


def training(steps: int, batch: int, reward=TinyPickScore, model=Tiny, **settings) -> Training:
    model, reward, fake = Guidance(model(), 5.0), reward(), Fake()
    fake.empty(model)
    fake.empty(reward)
    return Training(model, reward, DDIM(steps, eta=1.0), batch, fake, prompt=PROMPT, **settings)


@pytest.fixture(scope="module")
def small() -> Training:
    return training(STEPS, BATCH)


@pytest.fixture(scope="module")
def as_in_table() -> Training:
    """The sizes of the recorded table of memory."""
    return training(20, 4)


class Measured:
    """An update of the built-in model, with all of its tensors."""

    def __init__(self) -> None:
        self.model = Guidance(Tiny(), 5.0).eval()
        self.objective = Objective(self.model, TinyPickScore().eval()).of_frames()

    def peak(self, estimator: Estimator, memory: Memory) -> int:
        """Returns the most bytes of tensors beyond frozen weights, as a tracker of all storages finds them."""
        chain = Chain(self.model, DDIM(STEPS, eta=1.0), memory.checkpoint_steps)
        with Storages() as storages:
            optimizer = torch.optim.AdamW(self.model.trainable.values(), 0.0)
            terms = estimator.terms(
                estimator.rollout(chain, [PROMPT] * BATCH, chain.draw(range(BATCH)), self.objective)
            )
            while (term := next(terms, None)) is not None:
                term.backward()
                del term
            optimizer.step()
            optimizer.zero_grad()
        return storages.peak


@pytest.fixture(scope="module")
def measured() -> Measured:
    return Measured()


@pytest.mark.parametrize(("name", "saving"), covering(list(ESTIMATORS), ["nothing", "checkpoint_steps"]))
def test_the_estimate_is_what_is_measured(small, measured, name, saving):
    memory = SAVINGS[saving]
    estimated = small.peak(ESTIMATORS[name](), memory).device
    assert estimated == pytest.approx(measured.peak(ESTIMATORS[name](), memory), rel=TOLERANCE)


@pytest.mark.parametrize(("name", "saving"), covering(list(TABLE), list(SAVINGS)))
def test_the_estimate_is_what_was_recorded(as_in_table, name, saving):
    recorded = csv.DictReader((ROOT / "experiments/results/tiny/table6.csv").open())
    (row,) = [row for row in recorded if (row["method"], row["saving"]) == (name, saving)]
    found = as_in_table.peak(TABLE[name](), SAVINGS[saving])
    # the recorded one has no noises and no gradients by kind of term, which are 1 MiB
    assert found.device / 2**20 == pytest.approx(float(row["device_mib"]), rel=TOLERANCE, abs=1)
    assert found.waiting / 2**20 == pytest.approx(float(row["ram_mib"]), rel=TOLERANCE, abs=1)


def test_more_replayed_steps_take_more_and_none_least(small):
    peaks = [small.peak(e, Memory()).device for e in (ZerothOrder(), *map(FirstOrder, range(1, STEPS + 1)))]
    assert peaks == sorted(peaks)
    assert len(set(peaks)) == len(peaks)
    step = small.denoiser.kept.inputs.kept
    assert peaks[-1] - peaks[-2] == pytest.approx(step, rel=0.1)


def test_steps_that_are_computed_again_take_as_much_as_one(small):
    again = [small.peak(FirstOrder(k), AGAIN).device for k in (2, STEPS)]
    assert again[1] == pytest.approx(again[0], rel=0.05)
    assert again[1] < small.peak(FirstOrder(2), Memory()).device


def test_half_the_batch_takes_half(small):
    whole, half = (small.peak(FirstOrder(AllSteps()), Memory(), batch).device for batch in (2, 1))
    assert half == pytest.approx(whole / 2, rel=0.1)


def test_an_estimate_without_what_graphs_keep_is_wrong(small, measured):
    found = small.denoiser.kept
    forgotten = replace(found, weights=replace(found.weights, kept=0), inputs=replace(found.inputs, kept=0))
    wrong = training(STEPS, BATCH)
    wrong.__dict__.update(denoiser=Work(forgotten, lambda: forgotten), objective=small.objective, encoded=small.encoded)
    estimator = FirstOrder(AllSteps())
    assert wrong.peak(estimator, Memory()).device < (1 - TOLERANCE) * measured.peak(estimator, Memory())


def test_trained_weights_have_gradients_and_the_state_of_their_optimizer(small):
    full = training(2, 1, Brightness, lambda: Tiny(trainable=FullWeights()))
    size = 4 * sum(weight.numel() for weight in full.model.trainable.values())
    plain = training(
        2, 1, Brightness, lambda: Tiny(trainable=FullWeights()), optimization=Optimization(log_terms=False)
    )
    for found, copies in ((full, 4), (plain, 3)):
        # two moments of Adam, the gradient, and that of each kind of term
        peak = found.peak(FirstOrder(1), Memory()).device
        assert copies * size <= peak < (copies + 1.5) * size


def test_accumulated_rollouts_are_kept(small):
    several = training(STEPS, BATCH, optimization=Optimization(accumulate=3))
    several.__dict__.update(denoiser=small.denoiser, objective=small.objective, encoded=small.encoded)
    more = several.peak(FirstOrder(1), Memory()).device - small.peak(FirstOrder(1), Memory()).device
    latents = 2 * (STEPS + 1) * BATCH * 4 * 8 * 8 * 4
    condition = sum(t.numel() * t.element_size() for t in small.encoded[0].tensors.values())
    # the gradient of the first rollout is there when the graph of the next one is, and a copy by kind of term
    gradients = 2 * 4 * sum(weight.numel() for weight in small.model.trainable.values())
    assert more == pytest.approx(2 * (latents + condition) + gradients, rel=0.05)


def test_a_reward_of_other_programs_is_not_counted_and_named():
    found = training(2, 2, JPEGCompressibility)
    assert found.peak(HalfOrder(1), Memory()).device > 0
    assert [text.split()[0] for text in found.uncounted] == ["JPEGCompressibility"]


def test_an_estimator_that_does_not_fit_the_chain_is_refused(small):
    deterministic = replace(small, sampler=DDIM(STEPS, eta=0.0))
    deterministic.__dict__.update(denoiser=small.denoiser, objective=small.objective, encoded=small.encoded)
    with pytest.raises(ValueError, match="noise"):
        deterministic.peak(HalfOrder(1), Memory())
