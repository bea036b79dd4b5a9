"""Forward-process methods in the training step: rounds, groups, a deterministic sampler, resuming, several ranks."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from rlr.callbacks import SafeCheckpointIO
from rlr.data import PromptBatch, Prompts
from rlr.estimators import AWM, RAM, DecayRamp, DiffusionNFT, ForwardProcess, VelocityError
from rlr.estimators.matching import MatchingEstimator
from rlr.samplers import DDIM
from tests.modules.test_replay import SaveAfter
from tests.modules.toy import WORDS, Hard, Remembering, align, run, weights

RAMP = {"slope": 0.2, "limit": 0.6}
"""A decay that changes within a few updates."""

ESTIMATORS = {
    "awm": lambda **more: AWM(process=ForwardProcess(2), decay=DecayRamp(**RAMP), **more),
    "nft": lambda **more: DiffusionNFT(process=ForwardProcess(2), decay=DecayRamp(**RAMP), **more),
    "ram": lambda **more: RAM(multiplier=2.0, process=ForwardProcess(2), decay=DecayRamp(**RAMP), **more),
}


def module(estimator: MatchingEstimator, **settings: object):  # type: ignore[no-untyped-def]
    """Rounds of two batches of a black box, sampled without noise; the model knows its base."""
    toy = {"model": Remembering(frozen=False), "reward": Hard(), "sampler": DDIM(4, eta=0.0), "accumulate": 2}
    return align(**{**toy, "estimator": estimator, **settings})


def grouped(batch_size: int = 4) -> Prompts:
    return Prompts(list(WORDS[:5]), batch_size=batch_size, samples_per_prompt=2)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_it_raises_a_black_box_reward_of_a_deterministic_chain(name: str) -> None:
    # the anchors of AWM are for smaller steps
    settings = {"error": VelocityError(), "kl": 0.0, "old_weight": 0.0} if name == "awm" else {}
    one = module(ESTIMATORS[name](**settings), accumulate=1, lr=0.05 if name == "nft" else 0.02)
    batch = PromptBatch(16 * list(WORDS), list(range(128)))
    before = one.generate(batch).rewards
    run(one, Prompts(list(WORDS), batch_size=64, samples_per_prompt=8), 60)
    gain = one.generate(batch).rewards - before
    assert gain.mean() > max(0.03, 4 * gain.std() / len(gain) ** 0.5)


def trained(name: str, folder: Path, stop: int | None = None, resume: bool = False):  # type: ignore[no-untyped-def]
    """Trains four rounds of two updates, or saves a checkpoint after so many batches and stops there."""
    folder.mkdir(exist_ok=True)
    one = module(ESTIMATORS[name](num_minibatches=2), clip_norm=1.0)
    settings = {"plugins": [SafeCheckpointIO()], "ckpt_path": str(folder / "inside.ckpt") if resume else None}
    callbacks: list[Callback] = [SaveAfter(stop, str(folder / "inside.ckpt"))] if stop else []
    run(one, grouped(), 8, callbacks=callbacks, **settings)
    return one


@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.parametrize("batches", [3, 4])
def test_a_run_resumes_bit_for_bit_inside_and_between_rounds(name: str, batches: int, tmp_path: Path) -> None:
    whole = trained(name, tmp_path, stop=batches)
    resumed = trained(name, tmp_path, resume=True)
    assert torch.equal(weights(resumed), weights(whole))
    assert resumed.progress == whole.progress
    assert resumed.estimator.old.updates == 8
    for key, value in whole.estimator.old.weights.items():
        assert torch.equal(resumed.estimator.old.weights[key], value)


@pytest.mark.parametrize("name", ["nft", "ram"])
def test_without_the_old_policy_it_would_not(name: str, tmp_path: Path) -> None:
    whole = trained(name, tmp_path, stop=4)
    checkpoint = torch.load(tmp_path / "inside.ckpt", weights_only=True)
    checkpoint["alignment"]["estimator"]["old"]["weights"] = {}
    torch.save(checkpoint, tmp_path / "inside.ckpt")
    assert not torch.equal(weights(trained(name, tmp_path, resume=True)), weights(whole))


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_is_logged(name: str) -> None:
    logged = run(module(ESTIMATORS[name]()), grouped(), 2).logged_metrics
    assert logged["matching/error"] > 0
    assert logged["gradient/matching"] > 0
    assert logged["seconds/matching"] > 0
    assert 0 < logged["old_policy/decay"] <= 0.6
    assert logged["group/std"] > 0
    assert ("kl/velocity" in logged) == (name != "ram")


def test_a_bad_round_is_skipped() -> None:
    class Moody(Hard):
        calls = 0

        def forward(self, samples, texts):  # type: ignore[no-untyped-def]
            self.calls += 1
            return super().forward(samples, texts) * (float("nan") if self.calls == 2 else 1)

    one = module(ESTIMATORS["nft"](), reward=Moody())
    with pytest.warns(UserWarning, match="this update is skipped"):
        run(one, grouped(), 2)
    assert weights(one).isfinite().all()
