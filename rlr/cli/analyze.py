"""``python train.py analyze``: bias, variance and cost of gradient estimators on the model, reward and data of a config."""

import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from rlr.analysis.candidates import Yardstick, candidates, yardstick
from rlr.analysis.explained import Explained, described, explained
from rlr.analysis.memory import available_bytes, predicted_full_memory
from rlr.analysis.structure import alike, find_control
from rlr.analysis.survey import Survey, survey
from rlr.analysis.training import TrainingGradient
from rlr.callbacks import SafeCheckpointIO
from rlr.cli.analysis_page import Analysis
from rlr.estimators import LookAhead
from rlr.estimators.base import Estimator
from rlr.evaluation.provenance import provenance
from rlr.io.atomic import write_whole
from rlr.io.json_file import to_json
from rlr.modules import Alignment
from rlr.modules.checkpoint import load_trained

MOST = 64
"""The most rounds where the time decides."""


def analyze(
    training: TrainingGradient,
    estimators: dict[str, Estimator] | None = None,
    folder: str | None = None,
    ckpt_path: str | None = None,
    draws: int | None = None,
    minutes: float = 4.0,
    seed: int = 0,
    seconds_per_update: float | None = None,
    memory_gib: float | None = None,
) -> Analysis:
    """Measure bias, variance, direction and cost of gradient estimators.

    Model, reward, sampler, batch size and prompts are the config's; its penalty takes no part. The reference is the mean of full
    backpropagation where the reward has a gradient and the memory holds the graph, else that of an unbiased half-order estimator.

    Args:
        training: The gradient.
        estimators: The estimators to compare with the config's own, by name; by default truncated backpropagation,
            AlignProp, half order, half-order RLR with and without look-ahead, its pathwise half alone, and RLR, as far as they
            fit; for a reward without a gradient likelihood ratios, with the config's stand-in or critic, and zeroth order.
        folder: The folder of ``analysis.csv``, ``.json``, ``.png`` and ``.html``; by default ``analyze`` in that of the run.
        ckpt_path: A checkpoint whose trained weights are analyzed; by default the weights before training.
        draws: The number of estimates of each estimator, at least 4; by default as many as fit into ``minutes``, at most 64.
            The reference has four times as many.
        minutes: The time of all estimates where ``draws`` is not set: of a CPU, or on an accelerator that of a clock.
        seed: Decides all noise.
        seconds_per_update: The time of an update to recommend an estimator for; by default that of the config's estimator.
        memory_gib: The memory beyond weights to recommend an estimator for, and up to which full backpropagation is tried; by
            default no limit, and what is free.
    """
    _load(training, ckpt_path)
    peak_bytes = None if memory_gib is None else memory_gib * 2**30
    own, offered = _offered(training)
    compared = {own: training.module.estimator, **(estimators or offered)}
    most, seconds = (MOST, 60 * minutes) if draws is None else (draws, float("inf"))
    optional = () if estimators else offered
    found = survey(training, compared, _reference(training, peak_bytes), most, seconds, optional, progress)
    control = find_control(training.module.estimator) or LookAhead()
    shares = _explained(training, control, found)
    words, facts = described(control, training.chain.steps), _facts(training, found.rounds, seed, ckpt_path)
    analysis = Analysis(found, shares, words, own, seconds_per_update, peak_bytes, facts)
    if folder is not None:
        write(analysis, Path(folder))
    return analysis


def _offered(training: TrainingGradient) -> tuple[str, dict[str, Estimator]]:
    """Returns the name of the config's own estimator, and the others to compare by default: the same is not measured twice."""
    own, steps = training.module.estimator, training.chain.steps
    found = candidates(steps, training.differentiable, training.samples_per_prompt, find_control(own))
    same = [name for name, estimator in found.items() if alike(estimator, own, steps)]
    name = f"{next(iter(same), type(own).__name__)} of the config"
    return name, {name: estimator for name, estimator in found.items() if name not in same}


def _explained(training: TrainingGradient, control: LookAhead, found: Survey) -> list[Explained]:
    """Returns what a control variate explains of batches that the survey, in which its value has learned, did not have."""
    first = 1 + found.reference_draws
    progress("what the control variate explains")
    with training.precision():
        return explained([training.rollout(number) for number in range(first, first + found.rounds)], control)


def _load(training: TrainingGradient, ckpt_path: str | None) -> None:
    """Loads the trained weights of a checkpoint."""
    if ckpt_path is not None:
        load_trained(training.chain.model, SafeCheckpointIO().load_checkpoint(ckpt_path)["state_dict"], ckpt_path)


def _reference(training: TrainingGradient, peak_bytes: float | None) -> Yardstick:
    limit = available_bytes(training.module.device) if peak_bytes is None else peak_bytes
    affordable = training.differentiable and predicted_full_memory(training) <= limit
    return yardstick(training.chain, training.differentiable, affordable)


def progress(text: str) -> None:
    """Writes what has been done to stderr."""
    sys.stderr.write(f"analyze: {text}\n")
    sys.stderr.flush()


def _facts(training: TrainingGradient, rounds: int, seed: int, ckpt_path: str | None) -> dict[str, str]:
    found = provenance(training.module.device)
    sampler = training.chain.sampler
    return {
        "model": f"{type(training.chain.model).__name__}, {training.size} trained weights",
        "reward": training.module.reward.label,
        "sampler": f"{type(sampler).__name__}, {training.chain.steps} steps",
        "batch": str(training.batch_size),
        "weights": ckpt_path or "before training",
        "draws": str(rounds),
        "seed": str(seed),
        **{name: str(found[name]) for name in ("device", "date", "commit")},
    }


def write(analysis: Analysis, folder: Path) -> list[Path]:
    """Writes the files of an analysis and returns their paths."""
    content = {**analysis.facts, **asdict(analysis.survey), "explained": [asdict(e) for e in analysis.explained]}
    files = {
        "analysis.csv": analysis.csv(),
        "analysis.json": to_json(content),
        "analysis.html": analysis.html().encode(),
    }
    if analysis.survey.choices:
        files["analysis.png"] = analysis.image()
    for name, data in files.items():
        write_whole(folder / name, data)
    return [folder / name for name in files]


def training_gradient(
    module: Alignment, data: LightningDataModule, trainer: Mapping[str, Any], seed: int
) -> TrainingGradient:
    """Returns the gradient of an alignment on the device, and in the precision, of a trainer.

    Args:
        module: The alignment.
        data: The prompts.
        trainer: The arguments of the trainer, of which accelerator, devices and precision count; one device computes.
        seed: Decides all noise.
    """
    devices = trainer.get("devices")
    chosen = {name: trainer[name] for name in ("accelerator", "precision") if trainer.get(name) is not None}
    one: Any = [devices[0]] if isinstance(devices, list) else 1
    made = Trainer(
        **chosen,
        devices=one,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    moved = made.precision_plugin.convert_module(module).to(made.strategy.root_device)
    assert isinstance(moved, Alignment)
    return TrainingGradient(moved, data, seed, made.precision_plugin.train_step_context)
