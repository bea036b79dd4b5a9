"""Networks that are split over two processes train as on one."""

import inspect
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import model_parallel
from lightning.pytorch.trainer.connectors import accelerator_connector
from torch import Tensor

from rlr import distributed, lockstep
from rlr.callbacks import EMA, Checkpointing, Evaluation, SafeCheckpointIO
from rlr.data import Prompts
from rlr.data.stream import PromptPass
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RLR,
    AlignProp,
    DecayRamp,
    DiffusionNFT,
    ForwardProcess,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    Penalty,
    RoundStatistics,
    SegmentsByNorm,
    SharedDirection,
    ZerothOrder,
)
from rlr.evaluation import SampleGrid
from rlr.models import FullWeights, LoRA, StableDiffusion, StableDiffusion3
from rlr.models.export import DiffusersLoRA, Merged
from rlr.modules import sharded
from rlr.modules.sharded import Sharded
from rlr.rewards import Brightness
from rlr.samplers import DDIM, DanceSDE
from tests.modules.processes import run_group
from tests.modules.toy import align, run, weights

Folder = Callable[..., Path]
UPDATES, BATCH = 2, 4
PROMPTS = ["a red circle", "two blue squares", "three green circles", "the square"]


@pytest.fixture(autouse=True)
def silence() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def sgd(rate: float) -> Callable[..., torch.optim.Optimizer]:
    return lambda weights: torch.optim.SGD(weights, rate, momentum=0.5)


def unet(folder: Path, **settings: Any) -> Any:
    """A U-Net with a LoRA, whose steps are computed again in the backward pass."""
    settings = (
        {"model": StableDiffusion(str(folder), LoRA(2), dtype="float64"), **settings}
        if "model" not in settings
        else settings
    )
    defaults = {"reward": Brightness(), "optimizer": sgd(0.3), "sampler": DDIM(3, eta=1.0), "checkpoint_steps": True}
    return align(**{**defaults, **settings})


def whole_unet(folder: Path, **settings: Any) -> Any:
    """The attentions of the U-Net are trained."""
    return unet(
        folder,
        model=StableDiffusion(str(folder), FullWeights("attn"), dtype="float64"),
        optimizer=sgd(10.0),
        **settings,
    )


CASES: dict[str, tuple[Callable[..., Any], bool]] = {
    "half order": (lambda f: unet(f, estimator=HalfOrderRLR(1, control=LookAhead())), False),
    "rlr": (lambda f: unet(f, estimator=RLR(length=1)), False),
    "ddpo": (lambda f: unet(f, estimator=DDPO(1, 2, statistics=RoundStatistics()), accumulate=2), False),
    "awm": (
        lambda f: unet(f, estimator=AWM(process=ForwardProcess(), num_minibatches=1, statistics=RoundStatistics())),
        False,
    ),
    "ddpo, minibatches": (
        lambda f: unet(f, estimator=DDPO(3, minibatch=1, timestep_fraction=0.4, statistics=RoundStatistics())),
        False,
    ),
    "grpo as published": (lambda f: unet(f, estimator=GRPO(), accumulate=2), False),
    "grpo, fewer samples than processes": (lambda f: unet(f, estimator=GRPO(5, 2), penalty=Penalty(0.3)), False),
    "awm, levels": (
        lambda f: unet(
            f, estimator=AWM(process=ForwardProcess(1), num_minibatches=2, minibatch=1, statistics=RoundStatistics())
        ),
        False,
    ),
    "full weights, nft": (
        lambda f: whole_unet(
            f, estimator=DiffusionNFT(process=ForwardProcess(2), kl=0.0, num_minibatches=3, decay=DecayRamp(0.2, 0.6))
        ),
        True,
    ),
    "full weights, rlr": (lambda f: whole_unet(f, estimator=RLR(length=1, zeroth=ZerothOrder(scale=1e-3))), True),
    "full weights, shared direction": (
        lambda f: whole_unet(f, estimator=ZerothOrder(scale=1e-3, perturbation=SharedDirection())),
        True,
    ),
    "full weights, segments by norm": (
        lambda f: whole_unet(f, estimator=HalfOrder(1, 2, drawing=SegmentsByNorm())),
        True,
    ),
    "full weights, alignprop": (lambda f: whole_unet(f, estimator=AlignProp(), clip_norm=1.0), True),
    "full weights, half order": (lambda f: whole_unet(f, estimator=HalfOrderRLR(1, control=LookAhead())), True),
}


def data(world: int) -> Prompts:
    """The data of each of ``world`` processes."""
    return Prompts(PROMPTS, batch_size=BATCH // world, samples_per_prompt=2, val=PROMPTS[:2])


def train(module: Any, world: int, trained: bool, folder: Path | None = None, **settings: Any) -> Tensor:
    """Trains in this process, which is one of ``world``, and returns the whole weights."""
    ranks = {"strategy": Sharded(trained, process_group_backend="gloo"), "devices": world} if world > 1 else {}
    callbacks = [Checkpointing(1, str(folder)), EMA(0.5)] if folder else []
    extra = {
        "precision": "64-true",
        "plugins": [SafeCheckpointIO()],
        "enable_checkpointing": bool(folder),
        "limit_val_batches": 1,
    }
    run(module, data(world), UPDATES, callbacks=callbacks, **ranks, **{**extra, **settings})
    return torch.cat([distributed.gathered(w.detach()).flatten() for w in module.weights])


def split_share(module: Any) -> float:
    """Returns the share of the numbers of the denoiser that this process keeps."""
    found = list(module.chain.model.unet.parameters())
    kept = sum((w.to_local() if distributed.is_split(w) else w).numel() for w in found)
    return kept / sum(w.numel() for w in found)


QUICK = ("half order", "ddpo, minibatches", "full weights, half order")


def leave(names: Sequence[str], model: Path, left: Path) -> None:
    """Trains cases on two processes, which leave weights, the share that each keeps, and checkpoints."""

    def work(rank: int) -> None:
        for name in names:
            build, trained = CASES[name]
            module = build(model)
            found = train(module, 2, trained, left / name)
            torch.save({"weights": found, "share": split_share(module)}, left / f"{name}.{rank}.pt")

    run_group(2, work, left)


def check(name: str, model: Path, left: Path) -> None:
    """Compares what two processes left of a case with what one gets."""
    build, trained = CASES[name]
    module = build(model)
    start = weights(module)
    expected = train(module, 1, trained)
    assert (expected - start).abs().max() > 1e-4
    for rank in range(2):
        found = torch.load(left / f"{name}.{rank}.pt", weights_only=True)
        torch.testing.assert_close(found["weights"], expected, atol=1e-8, rtol=0)
        assert found["share"] < 0.6


@pytest.fixture(scope="module")
def folders(random_sd: Folder, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folder of the model, and that of what two processes left of the quick cases."""
    model, left = random_sd(), tmp_path_factory.mktemp("sharded")
    leave(QUICK, model, left)
    return model, left


@pytest.mark.parametrize("name", QUICK)
def test_two_processes_that_split_the_network_equal_one(name: str, folders: tuple[Path, Path]) -> None:
    check(name, *folders)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CASES if name not in QUICK])
def test_two_processes_equal_one_with_other_estimators(name: str, random_sd: Folder, tmp_path: Path) -> None:
    leave([name], random_sd(), tmp_path)
    check(name, random_sd(), tmp_path)


@pytest.mark.parametrize("name", QUICK)
def test_the_checkpoint_of_split_weights_is_whole(name: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    """One process resumes from it, with the same optimizer and the same average; and it can be exported."""
    build, trained = CASES[name]
    module = build(folders[0])
    left = torch.load(folders[1] / f"{name}.0.pt", weights_only=True)["weights"]
    last = folders[1] / name / "last.ckpt"
    kept = torch.load(last, weights_only=True)
    (moments,) = (state["state"] for state in kept["optimizer_states"])
    assert [m["momentum_buffer"].shape for m in moments.values()] == [w.shape for w in module.weights]
    (average,) = (state["average"] for name, state in kept["callbacks"].items() if "EMA" in name)
    assert {n: a.shape for n, a in average.items()} == {n: w.shape for n, w in module.chain.model.trainable.items()}
    longer = run(
        module,
        Prompts(PROMPTS, batch_size=BATCH),
        UPDATES,
        ckpt_path=str(last),
        precision="64-true",
        plugins=[SafeCheckpointIO()],
    )
    assert longer.global_step == UPDATES
    torch.testing.assert_close(weights(module), left, atol=0, rtol=0)
    exporter = Merged() if trained else DiffusersLoRA()
    assert exporter.write(module.chain.model, tmp_path / "out")


@pytest.mark.slow
def test_two_processes_resume_a_split_run(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """From the checkpoint of one process, with the optimizer's moments; the result is that of one process."""
    build, _ = CASES["full weights, half order"]
    expected = train(build(folders[0]), 1, True)
    first = build(folders[0])
    run(
        first,
        data(1),
        UPDATES - 1,
        precision="64-true",
        callbacks=[Checkpointing(1, str(tmp_path / "part"))],
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=True,
    )

    def work(rank: int) -> None:
        found = train(build(folders[0]), 2, True, ckpt_path=str(tmp_path / "part" / "last.ckpt"))
        torch.save(found, tmp_path / f"{rank}.pt")

    run_group(2, work, tmp_path)
    for rank in range(2):
        found = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_a_transformer_is_split_block_by_block(random_sd3: Folder, tmp_path: Path) -> None:
    folder = random_sd3()

    def build() -> Any:
        model = StableDiffusion3(str(folder), trainable=LoRA(2), tokens=16, dtype="float64")
        return unet(folder, model=model, sampler=DanceSDE(3), estimator=AlignProp(), checkpoint_steps=False)

    def work(rank: int) -> None:
        module = build()
        torch.save(train(module, 2, False), tmp_path / f"{rank}.pt")
        blocks = module.chain.model.transformer.transformer_blocks
        assert all(hasattr(block, "unshard") for block in blocks)

    run_group(2, work, tmp_path)
    expected = train(build(), 1, False)
    torch.testing.assert_close(torch.load(tmp_path / "1.pt", weights_only=True), expected, atol=1e-5, rtol=0)


def uneven(module: Any, folder: Path, **settings: Any) -> dict[str, Tensor]:
    """Trains, and evaluates three prompts, one of them and none on some process; returns what was measured and predicted."""
    shows = {"metrics": [Brightness()], "displays": [SampleGrid(3)], "every": 1}
    evaluation = Evaluation(samples=2, folder=str(folder), **shows)  # type: ignore[arg-type]
    data = Prompts(PROMPTS, batch_size=settings.pop("batch"), val=PROMPTS[:3], predict=PROMPTS[:1])
    extra = {"precision": "64-true", "plugins": [SafeCheckpointIO()], "default_root_dir": str(folder)}
    trainer = run(module, data, 1, callbacks=[evaluation, EMA(0.9)], limit_val_batches=2, **extra, **settings)
    assert evaluation.results is not None
    ((measured,),) = evaluation.results.sets.values()
    assert measured.base is not None
    predicted = trainer.predict(module, datamodule=data)
    rewards = torch.cat([batch.rewards for batch in predicted]).double()  # type: ignore[union-attr]
    validated = torch.tensor(trainer.validate(module, datamodule=data, verbose=False)[0]["val/reward"])
    return {"now": measured.scores, "base": measured.base, "validated": validated, "predicted": rewards}


@pytest.mark.slow
def test_uneven_evaluations_are_those_of_one_process(random_sd: Folder, tmp_path: Path) -> None:
    """A second run finds the base model's scores, and makes the samples that are shown alone."""
    folder = random_sd()

    def work(rank: int) -> None:
        for again in range(2):
            ranks = {"strategy": Sharded(True, process_group_backend="gloo"), "devices": 2, "batch": BATCH // 2}
            found = uneven(whole_unet(folder, estimator=AlignProp()), tmp_path / "two", **ranks)
            torch.save(found, tmp_path / f"{again}.{rank}.pt")

    run_group(2, work, tmp_path)
    expected = uneven(whole_unet(folder, estimator=AlignProp()), tmp_path / "one", batch=BATCH)
    assert (expected["now"] - expected["base"]).abs().max() > 1e-4
    assert expected["now"].shape == (3, 2)
    for again in range(2):
        for rank in range(2):
            found = torch.load(tmp_path / f"{again}.{rank}.pt", weights_only=True)
            assert len(found["predicted"]) == (1 if rank == 0 else 0)
            for name in ("now", "base", "validated"):
                torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=0, check_dtype=False)
            if rank == 0:
                torch.testing.assert_close(found["predicted"], expected["predicted"], atol=1e-6, rtol=0)


def test_without_the_strategy_no_pass_is_idle() -> None:
    assert not lockstep.enabled
    rows = [torch.tensor([1, 2]), torch.tensor([], dtype=torch.long), torch.tensor([0])]
    assert [(part.number, part.rows.tolist(), part.weight) for part in lockstep.parts(rows)] == [
        (0, [1, 2], 1.0),
        (2, [0], 1.0),
    ]
    assert not list(lockstep.idle(3))
    assert sharded.StrategyRegistry["sharded"]["strategy"] is Sharded


def test_processes_agree_on_their_passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What only another process has is idle here; batches that only another has are empty."""
    monkeypatch.setattr(lockstep, "enabled", True)
    empty, some = torch.tensor([], dtype=torch.long), torch.tensor([3, 4])

    def work(rank: int) -> None:
        rows = [[some, empty, empty], [empty, some, empty, some]][rank]
        found = [(part.number, part.rows.tolist(), part.weight) for part in lockstep.parts(rows)]
        own, other = ([3, 4], 1.0), ([0], 0.0)
        expected = [own, other, other] if rank == 0 else [other, own, own]
        assert found == [(number, *part) for number, part in zip((0, 1, 3), expected, strict=True)]
        assert len(lockstep.idle(5 - 2 * rank)) == 2 * rank
        batches = [batch.indices for batch in PromptPass(list("abc"), 1, rank=rank, world=2)]
        assert batches == [[[0], [2]], [[1], []]][rank]
        finished = PromptPass(list("abc"), 1, rank=rank, world=2, finished=lambda prompt, index: index == 0)
        assert [batch.indices for batch in finished] == [[[], [2]], [[1], []]][rank]

    run_group(2, work, tmp_path)


def test_a_module_without_networks_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a module with a diffusion model of networks, got ImageAlignment"):
        sharded._diffusion_model(align())


def test_the_page_quotes_lightning() -> None:
    """Why a strategy of Lightning's own cannot serve is read in its code."""
    page = (Path(__file__).parents[2] / "docs" / "several_gpus.md").read_text()
    quoted = [
        line.strip() for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) for line in block.splitlines()
    ]
    code = inspect.getsource(accelerator_connector) + inspect.getsource(model_parallel)
    assert len(quoted) > 3
    assert [line for line in quoted if line not in code] == []
