"""Aligning a model in memory with a reward, by the same classes that a config names."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffusers import (
    CogVideoXPipeline,
    Flux2KleinPipeline,
    Flux2Pipeline,
    FluxPipeline,
    HunyuanVideo15Pipeline,
    LTXPipeline,
    QwenImagePipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    WanPipeline,
    ZImagePipeline,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rlr.api.aligned import Aligned
from rlr.api.methods import method_of
from rlr.api.run_files import check_free
from rlr.callbacks import Checkpointing, MetricsFile, ProgressLine, SafeCheckpointIO
from rlr.cli.user_errors import USELESS
from rlr.data import PromptData, Prompts
from rlr.estimators import Estimator
from rlr.io.terminal import TERMINAL
from rlr.models import (
    CogVideoX,
    DiffusionModel,
    Flux,
    Flux2,
    Guidance,
    HunyuanVideo15,
    LTXVideo,
    QwenImage,
    RescaledGuidance,
    StableDiffusion,
    StableDiffusion3,
    StableDiffusionXL,
    Wan,
    ZImage,
)
from rlr.models.base import Size
from rlr.models.export import Card
from rlr.modules import Alignment, ImageAlignment, VideoAlignment
from rlr.modules.optimization import Optimization
from rlr.rewards import FunctionReward, Reward
from rlr.samplers import DDIM, FlowSDE, Sampler

Function = Callable[[Tensor, Sequence[str]], Any]
"""Scores of images and prompts."""


@dataclass(frozen=True)
class Family:
    """How the pipelines of one class are aligned.

    Args:
        model: Returns the model of a pipeline.
        sampler: Returns the sampler.
        guidance: The guidance scale.
        guided: Returns a model with guidance of a scale.
    """

    model: Callable[[Any], DiffusionModel]
    sampler: Callable[[], Sampler]
    guidance: float
    guided: Callable[[DiffusionModel, float], DiffusionModel] = Guidance


FAMILIES: Mapping[type, Family] = {
    StableDiffusionPipeline: Family(StableDiffusion.from_pipeline, DDIM, 5.0),
    StableDiffusion3Pipeline: Family(StableDiffusion3.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
    StableDiffusionXLPipeline: Family(StableDiffusionXL.from_pipeline, DDIM, 5.0),
    FluxPipeline: Family(Flux.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
    Flux2KleinPipeline: Family(Flux2.from_pipeline, lambda: FlowSDE(8, 0.7), 4.0),
    Flux2Pipeline: Family(Flux2.from_pipeline, lambda: FlowSDE(8, 0.7), 1.0),
    QwenImagePipeline: Family(QwenImage.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0, RescaledGuidance),
    ZImagePipeline: Family(ZImage.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
    WanPipeline: Family(Wan.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
    CogVideoXPipeline: Family(CogVideoX.from_pipeline, lambda: DDIM(25), 1.0),
    LTXPipeline: Family(LTXVideo.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
    HunyuanVideo15Pipeline: Family(HunyuanVideo15.from_pipeline, lambda: FlowSDE(10, 0.7), 1.0),
}
"""Sampler and guidance are those of the models' files, of ``flow_sde.yaml`` in ``configs/image/parts``, and of ``wan_row.yaml`` and
``cogvideox_row.yaml`` in ``configs/video/parts``."""


def align(
    pipe: Any,
    reward: Reward | Function,
    prompts: Sequence[str] | PromptData,
    method: str | Estimator = "look_ahead",
    updates: int = 200,
    batch_size: int = 8,
    accumulate: int | None = None,
    lr: float | None = None,
    sampler: Sampler | None = None,
    guidance: float | None = None,
    folder: str | Path | None = None,
    seed: int = 0,
) -> Aligned:
    """Trains a model to raise a reward.

    The pipeline itself makes aligned images afterwards. The model is moved to the accelerator if there is one.

    Args:
        pipe: A pipeline of a class in ``FAMILIES``, of which a LoRA is trained, or a model of this library, such as
            ``StableDiffusion.from_pipeline(pipe, LoRA(rank=16))``.
        reward: A reward, or a function of images in [0, 1] and prompts for :class:`~rlr.rewards.FunctionReward`.
        prompts: Training prompts, or a data set.
        method: The name of a method: look_ahead, half_order, rlr, first_order, alignprop, draft_lv, refl or ddpo, or an estimator.
        updates: The number of updates.
        batch_size: The number of samples of a batch.
        accumulate: The number of batches of an update; by default that of the method.
        lr: The learning rate; by default that of the method.
        sampler: The sampler; by default that of the model's family, DDIM with 50 steps for Stable Diffusion 1.x and 2.x.
        guidance: The guidance scale; by default that of the family, 5 for Stable Diffusion 1.x and 2.x.
        folder: A folder for ``last.ckpt`` and metrics; by default nothing is written.
        seed: Decides all noise and the order of the prompts.

    Raises:
        ValueError: If the pipeline is of an unknown class, the parts do not fit each other, or the folder holds a run.
    """
    model, own = _model(pipe, guidance)
    found, scored = method_of(method), _reward(reward, model.size, prompts)
    estimator = found.estimator(scored.differentiable)
    optimization = _changed(found.optimization, accumulate=accumulate, lr=lr)
    module = _kind(model)(model, sampler or own(), scored, estimator, optimization, seed=seed)
    data = _data(prompts, batch_size, seed)
    card = Card(scored.label, {**_facts(module, data), "updates": updates, "seed": seed})
    history, place = _fit(module, data, updates, folder), None if folder is None else Path(folder)
    return Aligned(module.chain, card, history, _pipeline(pipe), scored, data.read("train"), place)


def _pipeline(pipe: Any) -> Any:
    return None if isinstance(pipe, DiffusionModel) else pipe


def _kind(model: DiffusionModel) -> type[Alignment]:
    return ImageAlignment if model.size.frames is None else VideoAlignment


def _changed(optimization: Optimization, **values: Any) -> Optimization:
    """Returns the settings with the values that are not None."""
    return replace(optimization, **{name: value for name, value in values.items() if value is not None})


def _model(pipe: Any, guidance: float | None) -> tuple[DiffusionModel, Callable[[], Sampler]]:
    """Returns a model with guidance, and what makes its sampler."""
    if isinstance(pipe, DiffusionModel):
        return pipe if guidance is None else Guidance(pipe, guidance), DDIM
    family = next((family for kind, family in FAMILIES.items() if isinstance(pipe, kind)), None)
    if family is None:
        raise ValueError(
            f"align: expected one of {', '.join(kind.__name__ for kind in FAMILIES)}, or a model of this library, got a "
            f"{type(pipe).__name__}"
        )
    return family.guided(family.model(pipe), family.guidance if guidance is None else guidance), family.sampler


def _data(prompts: Sequence[str] | PromptData, batch_size: int, seed: int) -> PromptData:
    return (
        prompts if isinstance(prompts, PromptData) else Prompts(train=list(prompts), batch_size=batch_size, seed=seed)
    )


def _reward(reward: Reward | Function, size: Size, prompts: Sequence[str] | PromptData) -> Reward:
    if isinstance(reward, Reward):
        return reward
    texts = prompts.read("train") if isinstance(prompts, PromptData) else list(prompts)
    if not texts:
        raise ValueError("align: expected training prompts, got none")
    frames = () if size.frames is None else (size.frames,)
    return FunctionReward(reward, shape=(*frames, 3, size.height, size.width), prompts=texts[:2])


def _facts(module: Alignment, data: PromptData) -> dict[str, object]:
    sampler = module.chain.sampler
    return {
        "estimator": type(module.estimator).__name__,
        "sampler": f"{type(sampler).__name__}, {sampler.steps} steps",
        "lr": module.optimization.lr,
        "batch": f"{data.batch_size} × {module.optimization.accumulate}",
    }


class History(Callback):
    """Keeps the numbers that each update logs."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._updates = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step > self._updates:
            self._updates = trainer.global_step
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            self.rows.append({"update": float(self._updates), **metrics})


def _fit(module: Alignment, data: PromptData, updates: int, folder: str | Path | None) -> list[dict[str, float]]:
    history = History()
    places: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    callbacks: list[Callback] = [history, ProgressLine()]
    if folder is not None:
        check_free(Path(folder), "align")
        callbacks.append(Checkpointing(dirpath=str(folder)))
        places = {"logger": MetricsFile(Path(folder), False), "plugins": [SafeCheckpointIO()]}
    with _quiet(), TERMINAL.alive():
        trainer = Trainer(
            devices=1,
            max_epochs=-1,
            max_steps=updates,
            limit_val_batches=0,
            log_every_n_steps=1,
            inference_mode=False,
            enable_model_summary=False,
            callbacks=callbacks,
            **places,
        )
        trainer.fit(module, datamodule=data)
    # the trainer has moved the module to the CPU
    module.to(trainer.strategy.root_device)
    return history.rows


@contextmanager
def _quiet() -> Iterator[None]:
    """Within, Lightning does not describe itself."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in USELESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logger.setLevel(level)
