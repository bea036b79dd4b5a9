r"""LTX-Video, text to video, from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline, LTXVideoTransformer3DModel
from torch import Tensor

from rlr.io.weights import freeze
from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.latent import (
    VideoLatentDiffusion,
    decode_in_chunks,
    flow_pipeline,
    latent_frames,
    latent_sides,
    load_autoencoder,
)
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.models.t5_text import T5Prompts
from rlr.models.tokens import from_tokens, to_tokens
from rlr.schedules import Schedule, from_reciprocal

TARGETS = (
    *(f"{attention}.to_{name}" for attention in ("attn1", "attn2") for name in ("q", "k", "v", "out.0")),
    "ff.net.0.proj",
    "ff.net.2",
)
"""The projections of the attentions to the video and to the text, and the layers after them."""


class LTXVideo(VideoLatentDiffusion):
    r"""A rectified flow of videos with a transformer of single latent pixels, T5, and an autoencoder of few, wide latents.

    The network predicts the velocity :math:`v = \epsilon - x_0`; its time is :math:`1000 \sigma`. It reads the prompt's mask, and
    the frames a second, by which the rotations of positions are scaled. The grid is that of the pipeline, whose shift depends on
    the size of the video, so that ``FlowSDE`` with ``noise_level: 0`` samples as ``LTXPipeline`` does. Latents have shape
    :math:`(C, (F - 1) / k + 1, h, w)` for :math:`F` frames and a stride :math:`k` in time, 8 in the published models. An
    autoencoder that is conditioned on a time decodes at time 0, as the pipeline does by default.

    References:
        | LTX-Video: Realtime Video Latent Diffusion (HaCohen et al., 2024)
        | https://arxiv.org/abs/2501.00103

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on
            the hub: ``Lightricks/LTX-Video``, ``Lightricks/LTX-Video-0.9.5``, ``Lightricks/LTX-Video-0.9.7-dev``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on all
            attentions and the layers after them.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        size: Height and width in pixels, multiples of 32.
        frames: The number :math:`F` of frames, a multiple of :math:`k` plus 1.
        fps: The frames a second of the samples.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether videos are decoded one by one, and decoded again in the backward pass, so that memory is that of
            one video.
        vae_tiling: Whether large videos are decoded in overlapping tiles, which changes pixels near their seams.
        tokens: How many tokens of a prompt T5 reads, end included.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model, or the size does not fit.
    """

    kind = "an LTX-Video"
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    standard = Size(512, 704, 161, 25.0)

    transformer: Any

    def __init__(
        self,
        path: str = "Lightricks/LTX-Video",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        size: tuple[int, int] = (512, 704),
        frames: int = 161,
        fps: float = 25.0,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        tokens: int = 128,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, self.kind, self.parts, revision)
        self._build(folder, trainable, getattr(torch, dtype), text, tokens)
        self.set_size(Size(*size, frames, fps))
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    def _build(
        self,
        folder: ModelFolder,
        trainable: Trainable | None,
        number: torch.dtype,
        text: TextPlacement | None = None,
        tokens: int = 128,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler = folder.config(FlowMatchEulerDiscreteScheduler, "scheduler")
        transformer = folder.network(LTXVideoTransformer3DModel, "transformer", torch_dtype=number)
        check_flow_scheduler(scheduler, "LTXVideo")
        vae = load_autoencoder(folder, number, transformer.config.in_channels, AutoencoderKLLTXVideo)
        _check(transformer.config, vae.config, folder.path)
        prompts = T5Prompts(folder, number, tokens, masked=True, placement=text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = latent_frames(size, self.vae.temporal_compression_ratio, "LTXVideo")
        sides = latent_sides(size, self.vae.spatial_compression_ratio, "a video of this LTXVideo")
        return (self.transformer.config.in_channels, frames, *sides)

    def schedule(self, size: Size) -> Schedule:
        _, frames, height, width = self.latent_shape(size)
        return flow_schedule(self.scheduler, frames * height * width, from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        frames, height, width = x.shape[2:]
        space = self.vae.spatial_compression_ratio
        output = self.transformer(
            hidden_states=self.for_pipeline(x.to(self.dtype)),
            encoder_hidden_states=condition.tensors["text"].to(self.dtype),
            timestep=torch.full((len(x),), time, device=x.device, dtype=torch.float32) * 1000,
            encoder_attention_mask=condition.mask("text"),
            num_frames=frames,
            height=height,
            width=width,
            rope_interpolation_scale=(self.vae.temporal_compression_ratio / self._fps, space, space),
            return_dict=False,
        )[0]
        return flow(from_tokens(output, frames, height, width).to(x.dtype), x, 1 - time, time)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels of the chosen frames, with shape :math:`(B, k, 3, H, W)`.

        The decoder looks ahead in time, so that all frames are decoded, whichever are chosen.
        """
        pixels = decode_in_chunks(partial(_pixels, self.vae), x, 1 if self.vae_slicing else None).transpose(1, 2)
        return pixels if frames is None else pixels[:, list(frames)]

    @property
    def _fps(self) -> float:
        return self.size.fps or 25.0

    def for_pipeline(self, x: Tensor) -> Tensor:
        r"""Returns the tokens of latents, with shape :math:`(B, f h w, C)`."""
        return to_tokens(x)

    def fresh_network(self) -> Any:
        network: Any = freeze(self.folder.network(LTXVideoTransformer3DModel, "transformer", torch_dtype=self.dtype))
        return network.to(self.device)

    def pipeline_class(self) -> Any:
        return LTXPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        return flow_pipeline(self, network, encoder)

    def preview(self, network: Any) -> Tensor:
        names = {"text": "prompt_embeds", "text_mask": "prompt_attention_mask"}
        return self.preview_by_pipeline(network, names, num_frames=self.size.frames, frame_rate=self._fps)


def _check(transformer: Any, vae: Any, path: str) -> None:
    patches = transformer.patch_size, transformer.patch_size_t
    if patches != (1, 1) or transformer.out_channels != transformer.in_channels:
        raise ValueError(
            f"{path}/transformer/config.json: expected tokens of single latent pixels, with as many input as output channels, "
            f"found patches of {patches}, {transformer.in_channels} and {transformer.out_channels} channels; take the "
            "transformer of the published model"
        )
    if any(vae.decoder_inject_noise):
        raise ValueError(
            f"{path}/vae/config.json sets decoder_inject_noise: expected an autoencoder that decodes a latent to the same pixels "
            "every time; take the model 0.9.0, or one from 0.9.5 on"
        )


def _pixels(vae: Any, x: Tensor) -> Tensor:
    r"""Returns pixels :math:`\mathrm{clamp}(D(x \sigma / s + b) / 2 + 1/2, 0, 1)`, with shape :math:`(B, 3, F, H, W)`.

    :math:`b` and :math:`\sigma` are the mean and the standard deviation of each channel, which are weights of the autoencoder, and
    :math:`s` is its ``scaling_factor``.
    """
    mean, std = (values.view(1, -1, 1, 1, 1).to(x.dtype) for values in (vae.latents_mean, vae.latents_std))
    z = (x * std / vae.config.scaling_factor + mean).to(next(vae.parameters()).dtype)
    time = z.new_zeros(len(z)) if vae.config.timestep_conditioning else None
    return (vae.decode(z, time).sample.to(x.dtype) / 2 + 0.5).clamp(0, 1)
