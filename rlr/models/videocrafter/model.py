r"""VideoCrafter, a latent diffusion model of videos, from its authors' own files."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from rlr.io.hub import Published, find
from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.integrity import check_file
from rlr.models.latent import LatentDiffusion, decode_in_chunks, decode_pixels, latent_sides
from rlr.models.placement import TextPlacement
from rlr.models.prediction import slope
from rlr.models.videocrafter.architecture import CONFIG, Architecture, Variant
from rlr.models.videocrafter.checkpoint import WEIGHTS, Parts, load_official, load_text
from rlr.models.videocrafter.network import call
from rlr.models.videocrafter.prompts import OpenCLIPPrompts
from rlr.models.videocrafter.recompute import recompute
from rlr.models.videocrafter.turbo import T2VTurbo
from rlr.schedules import Schedule

CHECKPOINT, MERGES = "model.ckpt", "merges.txt.gz"
"""The file of weights, and that of the tokenizer's merges, which only models of another vocabulary have."""

RATES = 1.0, 60.0
"""The range of frames a second."""


class VideoCrafter(LatentDiffusion):
    r"""VideoCrafter2 (or 1): a denoiser of videos, a CLIP text tower and an autoencoder of single frames.

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
            VideoCrafter2's without one. A :class:`~rlr.models.T2VTurbo` makes a consistency model of it.
        trainable: The weights of the denoiser that are trained; by default ``LoRA()``.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        frames: The number :math:`F` of frames; by default that of training.
        size: Height and width in pixels, multiples of 64 for published sizes; by default those of training.
        fps: The frames a second that is an input of the denoiser, in [1, 60]: more make smaller motions.
        playback: The frames a second of the samples' files, in [1, 60]; not an input of the denoiser.
        checkpointing: Whether the denoiser's layers keep only their inputs and are computed again in the backward pass.
            It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        decode_chunk: How many frames are decoded at once, or None for all. Where a gradient is asked for and there are
            more, each chunk is decoded a second time in the backward pass, so that memory is that of one.
        text: Where the text tower and the embeddings are kept; by default ``WithModel()``.

    Raises:
        FileNotFoundError: If there is no file.
        ValueError: If it is another model's, or a size or the frame rate is out of range.
    """

    unet: Any

    def __init__(
        self,
        path: str = "VideoCrafter/VideoCrafter2",
        variant: Variant | Architecture | T2VTurbo | None = None,
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        frames: int | None = None,
        size: tuple[int, int] | None = None,
        fps: float | None = None,
        playback: float | None = None,
        checkpointing: bool = False,
        decode_chunk: int | None = 1,
        text: TextPlacement | None = None,
    ) -> None:
        file = _find(path)
        architecture, turbo = _architecture(variant, file), variant if isinstance(variant, T2VTurbo) else None
        merges = file.with_name(MERGES) if file.with_name(MERGES).is_file() else None
        number = getattr(torch, dtype)
        parts = _load(file, architecture, number, turbo)
        load = partial(load_text, file, architecture, number)
        identity = f"{file.resolve()} {file.stat().st_size} {file.stat().st_mtime_ns} {dtype}"
        prompts = OpenCLIPPrompts(load, architecture.text, identity, merges, text)
        super().__init__(prompts, parts.vae, trainable or LoRA(), {"unet": parts.unet})
        self.file, self.architecture, self.merges, self.turbo = file, architecture, merges, turbo
        self.noise_schedule = parts.schedule
        self.asked = _check_rate(architecture.fps if fps is None else fps)
        self.decode_chunk = _check_chunk(decode_chunk)
        height, width = architecture.size if size is None else size
        rate = _check_rate(architecture.playback if playback is None else playback)
        self.size = Size(height, width, architecture.frames if frames is None else frames, rate)
        self.latent_shape(self.size)
        if checkpointing:
            recompute(self.unet)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        if size.frames is None or size.frames < 1:
            raise ValueError(f"frames: VideoCrafter makes videos of at least one frame, and got frames={size.frames}")
        height, width = latent_sides(size, self.architecture.multiple, "a video of this VideoCrafter")
        coarse = self.architecture.multiple // self.architecture.vae.factor
        return (self.architecture.vae.z_channels, size.frames, height * coarse, width * coarse)

    def schedule(self, size: Size) -> Schedule:
        return self.noise_schedule

    def encode(self, prompts: Sequence[str]) -> Condition:
        text = self.text(prompts).tensors["text"]
        tensors = {"text": text, "fps": text.new_full((len(prompts),), self.asked, dtype=torch.float32)}
        if self.turbo:
            tensors["guidance"] = self.turbo.embedding(len(prompts), text.device)
        return Condition(tensors)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.dtype)
        times = torch.full((len(x),), int(time), device=x.device)
        fps, guidance = condition.tensors["fps"], condition.tensors.get("guidance")
        output = call(self.unet, x.to(self.dtype), times, text, fps, guidance)
        (alpha, sigma), scale = self.noise_schedule.levels(time), self.noise_schedule.scale(time)
        # the network knows the rescaled latent only
        return self.architecture.prediction(output.to(x.dtype), x, alpha / scale, sigma) / scale

    def skip(self, time: float) -> float:
        (alpha, sigma), scale = self.noise_schedule.levels(time), self.noise_schedule.scale(time)
        return slope(self.architecture.prediction, alpha / scale, sigma) / scale

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels of the chosen frames, see :func:`~rlr.models.latent.decode_pixels`; no other is decoded.

        Args:
            x: The latents of videos, with shape :math:`(B, 4, F, h, w)`.
            frames: Numbers of :math:`k` frames, from 0 to :math:`F - 1`; by default all.

        Returns:
            Pixels in [0, 1], with shape :math:`(B, k, 3, H, W)`.
        """
        latents = (x if frames is None else x[:, :, list(frames)]).transpose(1, 2)
        pixels = decode_in_chunks(partial(decode_pixels, self.vae), latents.flatten(0, 1), self.decode_chunk)
        return pixels.unflatten(0, latents.shape[:2])

    def fresh_network(self) -> Any:
        return _load(self.file, self.architecture, self.dtype, self.turbo).unet.to(self.device)

    def preview(self, network: Any) -> Tensor:
        x = torch.randn((1, *self.latent_shape(self.size)), generator=torch.Generator().manual_seed(0)).to(self.device)
        condition, own = self.encode(["a photo"]), self.unet
        try:
            self.unet = network
            with torch.no_grad():
                return self.decode(self.denoise(x, 500, condition))
        finally:
            self.unet = own


def _find(path: str) -> Path:
    """Returns the file of weights; it and its neighbors are whole."""
    file = find(path, [Published(CHECKPOINT), Published(WEIGHTS)])
    for found in (file, file.with_name(CONFIG), file.with_name(MERGES)):
        if found.is_file():
            check_file(found)
    return file


def _architecture(variant: Variant | Architecture | T2VTurbo | None, file: Path) -> Architecture:
    if isinstance(variant, T2VTurbo):
        return variant.architecture(_stated(file), file)
    found = _stated(file) if variant is None else variant.value if isinstance(variant, Variant) else variant
    if found.unet.guidance is not None:
        raise ValueError(
            f"{file}: expected a VideoCrafter, found a denoiser with a guidance scale as input; set variant to a T2VTurbo with "
            "path: null"
        )
    return found


def _stated(file: Path) -> Architecture:
    config = file.with_name(CONFIG)
    return Architecture.read(config) if config.is_file() else Variant.v2_512.value


def _load(file: Path, architecture: Architecture, dtype: torch.dtype, turbo: T2VTurbo | None) -> Parts:
    return turbo.load(file, architecture, dtype) if turbo else load_official(file, architecture, dtype)


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
