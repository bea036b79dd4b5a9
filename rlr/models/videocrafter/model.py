r"""VideoCrafter, a latent diffusion model of clips, from its authors' own files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rlr.io.atomic import write_whole
from rlr.io.hub import Published, find
from rlr.models.base import Condition, DiffusionModel
from rlr.models.integrity import check_file
from rlr.models.lora import LoRA, Trainable
from rlr.models.videocrafter.architecture import CONFIG, Architecture, Variant
from rlr.models.videocrafter.checkpoint import WEIGHTS, export_official, load_official
from rlr.models.videocrafter.network import call
from rlr.models.videocrafter.prompts import OpenCLIPPrompts
from rlr.models.videocrafter.recompute import recompute
from rlr.schedules import DiscreteSchedule

CHECKPOINT, MERGES = "model.ckpt", "merges.txt.gz"
"""The file of weights, and that of the tokenizer's merges, which only models of another vocabulary have."""

RATES = 1.0, 60.0
"""The range of frames a second."""


class VideoCrafter(DiffusionModel):
    r"""VideoCrafter2 (or 1): a denoiser of clips, a CLIP text tower and an autoencoder of single frames.

    Latents have shape :math:`(4, F, h, w)`. The file is read in its authors' layout, strictly. The signal of
    VideoCrafter2's noise schedule is rescaled by :math:`s_\tau`, see :class:`~rlr.schedules.RescaledSchedule`; its network
    predicts the noise, so that

    .. math:: \hat x_0 = \frac{x_\tau - \sigma_\tau \hat\epsilon}{s_\tau \sqrt{\bar\alpha_\tau}}

    and guidance of estimates remains guidance of outputs.

    References:
        | VideoCrafter2: Overcoming Data Limitations for High-Quality Video Diffusion Models (Chen et al., 2024)
        | https://arxiv.org/abs/2401.09047
        | VideoCrafter1: Open Diffusion Models for High-Quality Video Generation (Chen et al., 2023)
        | https://arxiv.org/abs/2310.19512

    Args:
        path: A file of weights, a folder with ``model.ckpt`` or ``model.safetensors``, or a hub id such as
            ``VideoCrafter/VideoCrafter2``.
        variant: One of the published sizes, or others; by default what a ``config.json`` beside the weights states, and
            VideoCrafter2's without one.
        trainable: The weights of the denoiser that are trained; by default ``LoRA()``.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        frames: The number :math:`F` of frames; by default that of training.
        size: Height and width in pixels, multiples of 64 for published sizes; by default those of training.
        fps: The frames a second that the denoiser is asked for, in [1, 60]: more make smaller motions.
        playback: The frames a second at which files of its clips are played, in [1, 60]; no input of the denoiser.
        checkpointing: Whether the denoiser's layers keep only their inputs and are computed again in the backward pass.
            It concerns steps with gradient, thus replayed ones; a roll-out is as fast as without.
        decode_chunk: How many frames are decoded at once, or None for all. Where a gradient is asked for and there are
            more, each chunk is decoded a second time in the backward pass, so that memory is that of one.
        cache: How many prompts' embeddings are kept.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is another model's, or a size or the frame rate is out of range.
    """

    schedule: DiscreteSchedule

    def __init__(
        self,
        path: str = "VideoCrafter/VideoCrafter2",
        variant: Variant | Architecture | None = None,
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        playback: float | None = None,
        checkpointing: bool = False,
        decode_chunk: int | None = 1,
        cache: int = 256,
    ) -> None:
        super().__init__()
        file = find(path, [Published(CHECKPOINT), Published(WEIGHTS)])
        for found in (file, file.with_name(CONFIG), file.with_name(MERGES)):
            if found.is_file():
                check_file(found)
        self.architecture = architecture = _architecture(variant, file)
        self.frames = _check_frames(architecture.frames if frames is None else frames)
        self.asked = _check_rate(architecture.fps if fps is None else fps)
        self.fps = _check_rate(architecture.playback if playback is None else playback)
        self.decode_chunk = _check_chunk(decode_chunk)
        height, width = _check_size(architecture.size if size is None else size, architecture.multiple)
        factor = architecture.vae.factor
        self.shape = (architecture.vae.z_channels, self.frames, height // factor, width // factor)
        parts = load_official(file, architecture, getattr(torch, dtype))
        self.unet, self.vae, self.schedule = parts.unet, parts.vae, parts.schedule
        self.merges = file.with_name(MERGES) if file.with_name(MERGES).is_file() else None
        self.text = OpenCLIPPrompts(parts.text, self.merges, cache)
        self.adapter = trainable or LoRA()
        self.adapter.attach(self.unet)
        if checkpointing:
            recompute(self.unet)

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return next(self.vae.parameters()).dtype

    def encode(self, prompts: Sequence[str]) -> Condition:
        text = self.text(prompts)
        return Condition({"text": text, "fps": text.new_full((len(prompts),), self.asked, dtype=torch.float32)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.dtype)
        times = torch.full((len(x),), int(time), device=x.device)
        output = call(self.unet, x.to(self.dtype), times, text, condition.tensors["fps"])
        (alpha, sigma), scale = self.schedule.levels(time), self.schedule.scale(time)
        # the network knows the rescaled latent only
        return self.architecture.prediction(output.to(x.dtype), x, alpha / scale, sigma) / scale

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels :math:`\mathrm{clamp}(D(x / s) / 2 + 1/2, 0, 1)` of the asked frames; no other is decoded.

        Args:
            x: The latents of videos, with shape :math:`(B, 4, F, h, w)`.
            frames: Numbers of :math:`k` frames, from 0 to :math:`F - 1`; by default all.

        Returns:
            Pixels in [0, 1], with shape :math:`(B, k, 3, H, W)`.
        """
        latents = (x if frames is None else x[:, :, list(frames)]).transpose(1, 2)
        rows = latents.flatten(0, 1)
        chunks = rows.split(self.decode_chunk or len(rows))
        again = len(chunks) > 1 and torch.is_grad_enabled()
        decode = partial(checkpoint, self._pixels, use_reentrant=False) if again else self._pixels
        return torch.cat([decode(chunk) for chunk in chunks]).unflatten(0, latents.shape[:2])

    def reference(self) -> AbstractContextManager[None]:
        return self.adapter.reference(self.unet)

    def export(self, folder: str | Path) -> None:
        """Writes a LoRA by itself, see :meth:`~rlr.models.lora.LoRA.export`, and full weights by :meth:`export_whole`."""
        self.adapter.export(self.unet, Path(folder), self.export_whole)

    def export_whole(self, folder: str | Path) -> None:
        """Writes ``model.ckpt`` in its authors' layout, which their programs open; a LoRA is added to the weights."""
        parts = (self.unet, self.vae, self.text.encoder)
        export_official(folder, *parts, self.architecture, dtype=self.dtype, name=CHECKPOINT)
        if self.merges:
            write_whole(Path(folder) / MERGES, self.merges.read_bytes())

    def _pixels(self, x: Tensor) -> Tensor:
        z = (x / self.architecture.scale_factor).to(self.dtype)
        return (self.vae.decode(z).sample.to(x.dtype) / 2 + 0.5).clamp(0, 1)


def _architecture(variant: Variant | Architecture | None, file: Path) -> Architecture:
    if variant is not None:
        return variant.value if isinstance(variant, Variant) else variant
    config = file.with_name(CONFIG)
    return Architecture.read(config) if config.is_file() else Variant.v2_512.value


def _check_frames(frames: int) -> int:
    if frames < 1:
        raise ValueError(f"a clip has at least one frame, and VideoCrafter got frames={frames}")
    return frames


def _check_rate(fps: float) -> float:
    low, high = RATES
    if not low <= fps <= high:
        raise ValueError(
            f"VideoCrafter's fps must lie in [{low:g}, {high:g}], and {fps:g} does not; its authors' programs take 16 to 28"
        )
    return fps


def _check_chunk(chunk: int | None) -> int | None:
    if chunk is not None and chunk < 1:
        raise ValueError(
            f"decode_chunk is a number of frames from 1 on, or null for all at once, and {chunk} is neither"
        )
    return chunk


def _check_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    if any(side < multiple or side % multiple for side in size):
        height, width = size
        raise ValueError(
            f"a clip's height and width must be positive multiples of {multiple} pixels for this VideoCrafter, and "
            f"{height} x {width} are not"
        )
    return size
