r"""Wan 2.1 and 2.2, text to video, from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from rlr.io.weights import freeze
from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.causal_vae import decode_causal, load_causal_autoencoder
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.latent import VideoLatentDiffusion, decode_in_chunks, latent_frames, latent_sides
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.models.umt5_text import UMT5Prompts
from rlr.schedules import FlowMatch, Schedule, unipc

TARGETS = (
    *(f"{attention}.to_{name}" for attention in ("attn1", "attn2") for name in ("q", "k", "v", "out.0")),
    "ffn.net.0.proj",
    "ffn.net.2",
)
"""The projections of the attentions to the video and to the text, and the layers after them."""


class Wan(VideoLatentDiffusion):
    r"""A rectified flow of videos with one or two transformers, the text encoder UMT5, and an autoencoder that is causal in time.

    The network predicts the velocity :math:`v = \epsilon - x_0`; its time is :math:`1000 \sigma`. Where a folder has two
    transformers, ``transformer`` computes at :math:`\sigma \geq b`, the ``boundary_ratio`` of ``model_index.json``, and
    ``transformer_2`` below, and each has a LoRA of its own. Latents have shape :math:`(C, (F - 1) / k + 1, h, w)` for :math:`F`
    frames and a stride :math:`k` in time, 4 in the published models.

    The grid is that of the folder's scheduler, ``UniPCMultistepScheduler`` or ``FlowMatchEulerDiscreteScheduler``, with the shift
    that its configuration states. ``FlowSDE`` with ``noise_level: 0`` makes Euler steps on it, as ``WanPipeline`` does with the
    latter; UniPC's own steps are of second order.

    References:
        | Wan: Open and Advanced Large-Scale Video Generative Models (Wan Team, 2025)
        | https://arxiv.org/abs/2503.20314

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/``, ``scheduler/`` and
            ``model_index.json``, or its name on the hub: ``Wan-AI/Wan2.1-T2V-1.3B-Diffusers``, ``Wan-AI/Wan2.1-T2V-14B-Diffusers``,
            ``Wan-AI/Wan2.2-T2V-A14B-Diffusers``, ``Wan-AI/Wan2.2-TI2V-5B-Diffusers``.
        trainable: The weights of the transformers that are trained; by default ``LoRA(rank=64, alpha=128)`` on all
            attentions and the layers after them.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        size: Height and width in pixels, multiples of 16 (of 32 for the 5B model).
        frames: The number :math:`F` of frames, a multiple of :math:`k` plus 1.
        fps: The frames a second of the samples' files; not an input of the network.
        checkpointing: Whether the transformers' blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether videos are decoded one by one, and decoded again in the backward pass, so that memory is that of
            one video.
        vae_tiling: Whether large videos are decoded in overlapping tiles, which changes pixels near their seams.
        tokens: How many tokens of a prompt the text encoder reads.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model, or the size does not fit.
    """

    kind = "a Wan"
    parts = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
    standard = Size(480, 832, 81, 16.0)

    transformer: Any
    transformer_2: Any

    def __init__(
        self,
        path: str = "Wan-AI/Wan2.1-T2V-1.3B-Diffusers",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        size: tuple[int, int] = (480, 832),
        frames: int = 81,
        fps: float = 16.0,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        tokens: int = 512,
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
        tokens: int = 512,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler, index = folder.config(UniPCMultistepScheduler, "scheduler"), folder.index()
        _check_scheduler(scheduler)
        names = _experts(index, folder.path)
        networks = {name: folder.network(WanTransformer3DModel, name, torch_dtype=number) for name in names}
        channels = _channels(networks["transformer"].config, folder.path)
        vae = load_causal_autoencoder(folder, AutoencoderKLWan, number, channels)
        super().__init__(UMT5Prompts(folder, number, tokens, text), vae, trainable or LoRA(64, 128), networks, TARGETS)
        self.folder, self.scheduler, self.index = folder, scheduler, index
        self.boundary: float = index.get("boundary_ratio") or 0.0

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        config = self.vae.config
        frames = latent_frames(size, config.scale_factor_temporal, "Wan")
        _, patch, _ = self.transformer.config.patch_size
        height, width = latent_sides(size, config.scale_factor_spatial * patch, "a video of this Wan")
        return (config.z_dim, frames, height * patch, width * patch)

    def schedule(self, size: Size) -> Schedule:
        if "flow_shift" in self.scheduler:
            return FlowMatch(self.scheduler["flow_shift"], spacing=unipc)
        _, frames, height, width = self.latent_shape(size)
        _, *patch = self.transformer.config.patch_size
        return flow_schedule(self.scheduler, frames * (height // patch[0]) * (width // patch[1]))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        network = self.transformer if time >= self.boundary else self.transformer_2
        output = network(
            hidden_states=x.to(self.dtype),
            timestep=torch.full((len(x),), time, device=x.device, dtype=torch.float32) * 1000,
            encoder_hidden_states=condition.tensors["text"].to(self.dtype),
            return_dict=False,
        )[0]
        return flow(output.to(x.dtype), x, 1 - time, time)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels of the chosen frames, with shape :math:`(B, k, 3, H, W)`.

        The autoencoder is causal: the latent frames up to the last chosen one are decoded, and none after it.
        """
        stride, first = self.vae.config.scale_factor_temporal, x[:, :, :1]
        chosen = range(stride * (x.shape[2] - 1) + 1) if frames is None else list(frames)
        prefix = x[:, :, : -(-max(chosen) // stride) + 1] if chosen else first
        pixels = decode_in_chunks(partial(decode_causal, self.vae), prefix, 1 if self.vae_slicing else None)
        return pixels.transpose(1, 2)[:, list(chosen)]

    def fresh_network(self) -> Any:
        fresh = {
            name: freeze(self.folder.network(WanTransformer3DModel, name, torch_dtype=self.dtype)).to(self.device)
            for name in self.networks()
        }
        return fresh["transformer"] if len(fresh) == 1 else nn.ModuleDict(fresh)

    def pipeline_class(self) -> Any:
        return WanPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        kind = UniPCMultistepScheduler if "flow_shift" in self.scheduler else FlowMatchEulerDiscreteScheduler
        return WanPipeline(
            tokenizer=self.text.tokenizer,
            text_encoder=encoder,
            vae=self.vae,
            scheduler=kind.from_config(self.scheduler),
            **({"transformer_2": None} | self.named(network)),
            boundary_ratio=self.index.get("boundary_ratio"),
            expand_timesteps=self.index.get("expand_timesteps", False),
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"}, num_frames=self.size.frames)


def _check_scheduler(config: dict[str, Any]) -> None:
    if "flow_shift" not in config:
        check_flow_scheduler(config, "Wan")
    elif not config.get("use_flow_sigmas") or config.get("prediction_type") != "flow_prediction":
        raise ValueError(
            "scheduler_config.json: expected a UniPCMultistepScheduler with use_flow_sigmas: true and prediction_type: "
            f"flow_prediction, found {config.get('use_flow_sigmas')} and {config.get('prediction_type')}; take the "
            "scheduler of the published model"
        )


def _experts(index: dict[str, Any], path: str) -> tuple[str, ...]:
    """Returns the names of the transformers that ``model_index.json`` states."""
    if not index:
        raise ValueError(
            f"{path}: expected a model_index.json, which states how many transformers there are, found none; download the whole "
            "folder"
        )
    library, *_ = index.get("transformer_2") or (None,)
    if library is None:
        return ("transformer",)
    if not index.get("boundary_ratio"):
        raise ValueError(
            f"{path}/model_index.json: expected a boundary_ratio, since it states two transformers, found none"
        )
    return ("transformer", "transformer_2")


def _channels(config: Any, path: str) -> int:
    """Returns the channels of the latents."""
    if config.in_channels != config.out_channels or config.image_dim is not None:
        raise ValueError(
            f"{path}/transformer/config.json: expected a model of text alone, with as many input as output channels, found "
            f"{config.in_channels} and {config.out_channels}; take a T2V or TI2V model"
        )
    channels: int = config.out_channels
    return channels
