"""One curve at any number of processes: 1, 2 and 4 with the same global batch give the same weights, for every estimator."""

import inspect
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor

from rlr import estimators
from rlr.callbacks import SafeCheckpointIO
from rlr.data import Prompts
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RAM,
    RLR,
    AlignProp,
    Antithetic,
    ClipFeatures,
    Critic,
    DecayRamp,
    DiffusionNFT,
    DirectAlign,
    DRaFTLV,
    DRTune,
    Estimator,
    FirstOrder,
    ForwardProcess,
    GatedPenalty,
    GaussianSteps,
    GroupStatistics,
    GroupStd,
    HalfOrder,
    HalfOrderRLR,
    HybridPolicyGradient,
    LeapAlign,
    LeaveOneOut,
    LeaveOneOutRegression,
    LookAhead,
    OfficialRLR,
    Penalty,
    PromptStatistics,
    ReFL,
    RunningRegression,
    SegmentsByNorm,
    SharedDirection,
    Sum,
    ZerothOrder,
    drawing,
)
from rlr.modules.term_weights import Shrinkage
from rlr.modules.update import Updater
from rlr.rewards import Brightness, Combine, RunningZScore
from rlr.rollout import Share
from rlr.samplers import DDIM, RandomWindow, Windowed
from tests.modules.processes import run_group
from tests.modules.toy import WORDS, Hard, Level, Remembering, align, run, weights

QUICK, WHOLE = 4, 20
"""The updates of a run in the quick tests, and in the slow ones."""
BATCH = 8
"""The samples of a batch of all processes together."""
STAY = {"decay": DecayRamp(0.2, 0.6)}


class Shades:
    """Features of pixels and of prompts in the place of a CLIP model's."""

    dimension = 3

    def to(self, device: torch.device) -> "Shades":
        return self

    def features(self, frames: Tensor) -> Tensor:
        return frames.float().mean((2, 3))

    def text_features(self, prompts: Sequence[str]) -> Tensor:
        return torch.tensor([[WORDS.index(prompt) / 8, 1.0, 0.0] for prompt in prompts])


def combined() -> Combine:
    return Combine({"level": Level(), "hard": Hard()}, {"level": 1.0, "hard": 0.5}, RunningZScore())


Case = Callable[[], dict[str, Any]]
CASES: dict[str, Case] = {
    "FirstOrder": lambda: {"estimator": FirstOrder(GaussianSteps(mean=2.0, std=1.0))},
    "HalfOrder": lambda: {"estimator": HalfOrder(2, segments=1)},
    "HalfOrder, segments by norm": lambda: {"estimator": HalfOrder(1, 2, drawing=SegmentsByNorm())},
    "HalfOrder, leave-one-out regression": lambda: {
        "estimator": HalfOrder(1, control=LookAhead(coefficients=LeaveOneOutRegression()))
    },
    "HalfOrderRLR, running regression": lambda: {
        "estimator": HalfOrderRLR(1, control=LookAhead(coefficients=RunningRegression())),
        "accumulate": 2,
    },
    "HalfOrderRLR, critic": lambda: {
        "reward": Hard(),
        "estimator": HalfOrderRLR(1, None, control=LookAhead(value=Critic(ClipFeatures(Shades()), batch=16))),  # type: ignore[arg-type]
    },
    "RLR": lambda: {"estimator": RLR(length=2, zeroth=ZerothOrder(scale=1e-3))},
    "RLR, weighted terms": lambda: {
        "estimator": RLR(length=2),
        "term_weights": Shrinkage(warmup=3),
        "log_terms": False,
    },
    "ZerothOrder": lambda: {"estimator": ZerothOrder(scale=1e-2, directions=2), "reward": Hard()},
    "ZerothOrder, shared direction": lambda: {
        "estimator": ZerothOrder(scale=1e-2, perturbation=SharedDirection()),
        "reward": Hard(),
    },
    "Antithetic": lambda: {"estimator": Antithetic(HalfOrder(2, baseline=LeaveOneOut(2)))},
    "Sum": lambda: {"estimator": Sum([FirstOrder(), HalfOrder(2, skip_last=1)])},
    "AlignProp": lambda: {"estimator": AlignProp(), "accumulate": 2},
    "ReFL": lambda: {"estimator": ReFL(window=2)},
    "DRTune": lambda: {"estimator": DRTune(window=3)},
    "DRaFTLV": lambda: {"estimator": DRaFTLV()},
    "DirectAlign": lambda: {"estimator": DirectAlign()},
    "LeapAlign": lambda: {"estimator": LeapAlign()},
    "OfficialRLR": lambda: {"estimator": OfficialRLR(draws=2)},
    "DDPO": lambda: {
        "reward": Hard(),
        "estimator": DDPO(4, minibatch=2, timestep_fraction=0.5, statistics=PromptStatistics(4, 2)),
        "accumulate": 2,
    },
    "DDPO, fewer samples than ranks": lambda: {
        "reward": Hard(),
        "estimator": DDPO(5, epochs=2),
        "penalty": Penalty(0.3),
    },
    "GRPO": lambda: {
        "reward": Hard(),
        "estimator": GRPO(2, 2, statistics=GroupStatistics(GroupStd())),
        "sampler": Windowed(DDIM(4, eta=1.0), RandomWindow(2)),
        "accumulate": 2,
    },
    "HybridPolicyGradient": lambda: {
        "reward": Hard(),
        "estimator": HybridPolicyGradient(2, weight=0.1, reward=Brightness(), statistics=GroupStatistics(GroupStd())),
        "sampler": DDIM(4, eta=1.0),
    },
    "AWM": lambda: {"reward": Hard(), "estimator": AWM(process=ForwardProcess(2), num_minibatches=2, **STAY)},
    "DiffusionNFT": lambda: {
        "reward": Hard(),
        "sampler": DDIM(4, eta=0.0),
        "estimator": DiffusionNFT(num_minibatches=4, minibatch=1, **STAY),
        "accumulate": 2,
    },
    "RAM": lambda: {"reward": Hard(), "estimator": RAM(multiplier=2.0, process=ForwardProcess(2), **STAY)},
    "z-scored rewards": lambda: {"estimator": HalfOrder(2), "reward": combined()},
    "gated penalty": lambda: {
        "reward": combined(),
        "estimator": DDPO(2),
        "penalty": GatedPenalty(0.3, {"hard": 1.0}, share=0.5, every=3),
    },
}


RESUMED = (
    "FirstOrder",
    "HalfOrder, segments by norm",
    "HalfOrderRLR, running regression",
    "HalfOrderRLR, critic",
    "RLR, weighted terms",
    "ZerothOrder, shared direction",
    "DDPO",
    "DDPO, fewer samples than ranks",
    "GRPO",
    "AWM",
    "z-scored rewards",
    "gated penalty",
)
"""Cases that four processes resume in the quick tests: each state and each draw that processes share; in the slow ones, all are."""


def cases(world: int, updates: int) -> Sequence[str]:
    """Returns the cases that so many processes train for so many updates."""
    return RESUMED if (world, updates) == (4, QUICK) else list(CASES)


def test_every_estimator_has_a_case() -> None:
    kinds = [getattr(estimators, name) for name in dir(estimators)]
    named = {kind.__name__ for kind in kinds if inspect.isclass(kind) and issubclass(kind, Estimator)} - {"Estimator"}
    assert named <= {name.split(",")[0] for name in CASES}


class Keep(Callback):
    """Keeps a checkpoint of the middle of a run; between the batches of a round, where a round has several."""

    def __init__(self, checkpoint: Path, updates: int) -> None:
        self.checkpoint, self.updates, self.kept = checkpoint, updates, False

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:  # type: ignore[no-untyped-def]
        done = pl_module.progress.batches * pl_module.estimator.updates_per_round / pl_module.optimization.accumulate
        if not self.kept and done >= self.updates / 2:
            self.kept = True
            trainer.save_checkpoint(self.checkpoint)


@pytest.fixture(scope="module", autouse=True)
def silence() -> None:
    """Trainers announce themselves each time."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def train(name: str, world: int, updates: int, checkpoint: Path | None = None, resume: Path | None = None) -> Tensor:
    """Trains a case in this process, which is one of ``world``, and returns the weights."""
    defaults = {"model": Remembering(frozen=False, dtype="float64"), "lr": 0.01, "clip_norm": 1.0}
    one = align(**{**defaults, **CASES[name]()})
    if updates == QUICK and name not in RESUMED:
        # what Lightning does with the numbers of a round takes as long as the round, and the other cases log them
        one.log = one.log_dict = lambda *numbers, **settings: None
    data = Prompts(list(WORDS[:5]), batch_size=BATCH // world, samples_per_prompt=2)
    ranks = {"strategy": "ddp", "devices": world} if world > 1 else {}
    callbacks = [Keep(checkpoint, updates)] if checkpoint else []
    path = str(resume) if resume else None
    run(
        one,
        data,
        updates,
        precision="64-true",
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        ckpt_path=path,
        **ranks,
    )
    return weights(one)


def several(world: int, updates: int, folder: Path) -> Callable[[int], None]:
    """Returns what each rank of a group does: two train all cases and save checkpoints, from which four resume."""

    def work(rank: int) -> None:
        for name in cases(world, updates):
            number = list(CASES).index(name)
            saved = {("checkpoint" if world == 2 else "resume"): folder / f"{number}.ckpt"}
            torch.save(train(name, world, updates, **saved), folder / f"{number}_{world}_{rank}.pt")

    return work


@pytest.fixture(scope="module", params=[QUICK, pytest.param(WHOLE, marks=pytest.mark.slow)])
def updates(request: pytest.FixtureRequest) -> int:
    """The updates of a run."""
    return request.param


@pytest.fixture(scope="module")
def groups(updates: int, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the ranks of two and of four processes left."""
    folder = tmp_path_factory.mktemp("groups")
    for world in (2, 4):
        run_group(world, several(world, updates, folder), folder)
    return folder


@pytest.mark.parametrize("name", CASES)
def test_two_processes_and_four_that_resume_them_give_the_weights_of_one(name: str, updates: int, groups: Path) -> None:
    number = list(CASES).index(name)
    expected = train(name, 1, updates)
    start = weights(align(model=Remembering(frozen=False, dtype="float64")))
    assert (expected - start).abs().max() > 2e-3
    for world in [world for world in (2, 4) if name in cases(world, updates)]:
        for rank in range(world):
            found = torch.load(groups / f"{number}_{world}_{rank}.pt", weights_only=True)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    resumed = train(name, 1, updates, resume=groups / f"{number}.ckpt")
    torch.testing.assert_close(resumed, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_four_processes_from_the_beginning_give_the_weights_of_one(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        torch.save({name: train(name, 4, WHOLE) for name in CASES}, tmp_path / f"{rank}.pt")

    run_group(4, work, tmp_path)
    for rank in range(4):
        for name, found in torch.load(tmp_path / f"{rank}.pt", weights_only=True).items():
            torch.testing.assert_close(found, train(name, 1, WHOLE), atol=1e-5, rtol=0, msg=name)


SABOTAGE = {
    "HalfOrder": (Updater, "_average", lambda self, gradients: None),
    "DDPO": (Share, "of_rank", classmethod(lambda cls, batch: cls(torch.arange(batch), batch))),
    "AWM": (Share, "of_rank", classmethod(lambda cls, batch: cls(torch.arange(batch), batch))),
    "HalfOrder, segments by norm": (
        drawing,
        "square_of_mean",
        lambda gs: torch.stack([g.square().sum() for g in gs]).sum(),
    ),
}
"""Faults: gradients that are not averaged, minibatches within each rank, noises of ranks that are alike, norms of a rank alone."""


def test_the_law_can_fail(tmp_path: Path) -> None:
    """A forked process inherits what is patched here."""

    def work(rank: int) -> None:
        for name, (owner, what, fault) in SABOTAGE.items():
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(owner, what, fault)
                torch.save(train(name, 2, QUICK), tmp_path / f"{name}.{rank}.pt")

    run_group(2, work, tmp_path)
    for name in SABOTAGE:
        found = torch.load(tmp_path / f"{name}.0.pt", weights_only=True)
        assert (found - train(name, 1, QUICK)).abs().max() > 1e-4, name
