r"""HunyuanVideo 1.5, text to video, from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from torch import Tensor

from rlr.io.weights import freeze
from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.hunyuan_text import HunyuanPrompts
from rlr.models.latent import (
    VideoLatentDiffusion,
    decode_in_chunks,
    latent_frames,
    latent_sides,
    load_autoencoder,
    pixels_of,
)
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.schedules import Schedule, from_reciprocal

TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""The projections of the joint attentions, those of the video and of the text."""


class HunyuanVideo15(VideoLatentDiffusion):
    r"""A rectified flow of videos with a transformer of two streams, a language model, ByT5, and an autoencoder causal in time.

    The network predicts the velocity :math:`v = \epsilon - x_0`; its time is :math:`1000 \sigma`. It reads the prompt's tokens
    without padding, the text within quotes through ByT5, and in place of a first frame zeros. The grid is that of the pipeline,
    with the shift that the scheduler's configuration states, so that ``FlowSDE`` with ``noise_level: 0`` samples as
    ``HunyuanVideo15Pipeline`` does, whose guidance is ``Guidance`` with the scale of its ``guider``. Latents have shape
    :math:`(C, (F - 1) / k + 1, h, w)` for :math:`F` frames and a stride :math:`k` in time, 4 in the published models.

    References:
        | HunyuanVideo 1.5 Technical Report (Tencent, 2025)
        | https://arxiv.org/abs/2511.18870

    Args:
        path: A folder with ``transformer/``, ``vae/``, two text encoders, two tokenizers, ``scheduler/`` and ``guider/``, or its
            name on the hub: ``hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v``, or ``…-720p_t2v``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the
            projections of all attentions, those of the refiner of the prompt's tokens included.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        size: Height and width in pixels, multiples of 16.
        frames: The number :math:`F` of frames, a multiple of :math:`k` plus 1.
        fps: The frames a second of the samples' files; not an input of the network.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether videos, which are decoded one by one in any case, are decoded again in the backward pass, so that
            memory is that of one video.
        vae_tiling: Whether large videos are decoded in overlapping tiles, which changes pixels near their seams.
        tokens: How many tokens of a prompt the language model reads, the end of the template included.
        text: Where the text encoders and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model, or the size does not fit.
    """

    kind = "a HunyuanVideo 1.5"
    parts = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler", "guider")
    standard = Size(480, 848, 121, 24.0)

    transformer: Any

    def __init__(
        self,
        path: str = "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        size: tuple[int, int] = (480, 848),
        frames: int = 121,
        fps: float = 24.0,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        tokens: int = 1000,
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
        tokens: int = 1000,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler = folder.config(FlowMatchEulerDiscreteScheduler, "scheduler")
        transformer = folder.network(HunyuanVideo15Transformer3DModel, "transformer", torch_dtype=number)
        check_flow_scheduler(scheduler, "HunyuanVideo15")
        config = transformer.config
        _check(config, folder.path)
        vae = load_autoencoder(folder, number, config.out_channels, AutoencoderKLHunyuanVideo15)
        prompts = HunyuanPrompts(folder, number, tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler
        self.guider = folder.config(ClassifierFreeGuidance, "guider")

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        frames = latent_frames(size, self.vae.config.temporal_compression_ratio, "HunyuanVideo15")
        sides = latent_sides(size, self.vae.config.spatial_compression_ratio, "a video of this HunyuanVideo15")
        return (self.transformer.config.out_channels, frames, *sides)

    def schedule(self, size: Size) -> Schedule:
        _, frames, height, width = self.latent_shape(size)
        return flow_schedule(self.scheduler, frames * height * width, from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        noisy = x.to(self.dtype)
        (text, text_mask), (glyphs, glyphs_mask) = (self._sequences(condition, name) for name in ("text", "glyphs"))
        # neither a first frame nor its features
        frame, given = torch.zeros_like(noisy), torch.zeros_like(noisy[:, :1])
        output = self.transformer(
            hidden_states=torch.cat([noisy, frame, given], 1),
            timestep=x.new_full((len(x),), 1000 * time, dtype=self.dtype),
            encoder_hidden_states=text,
            encoder_attention_mask=text_mask,
            encoder_hidden_states_2=glyphs,
            encoder_attention_mask_2=glyphs_mask,
            image_embeds=text.new_zeros(len(x), 0, self.transformer.config.image_embed_dim),
            return_dict=False,
        )[0]
        return flow(output.to(x.dtype), x, 1 - time, time)

    def _sequences(self, condition: Condition, name: str) -> tuple[Tensor, Tensor]:
        """Returns the embeddings of a name, and their mask."""
        rows, mask = condition.tensors[name].to(self.dtype), condition.mask(name)
        return rows, rows.new_ones(rows.shape[:2], dtype=torch.bool) if mask is None else mask

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels of the chosen frames, with shape :math:`(B, k, 3, H, W)`.

        The autoencoder is causal: the latent frames up to the last chosen one are decoded, and none after it.
        """
        stride = self.vae.config.temporal_compression_ratio
        chosen = range(stride * (x.shape[2] - 1) + 1) if frames is None else list(frames)
        prefix = x[:, :, : -(-max(chosen, default=0) // stride) + 1] / self.vae.config.scaling_factor
        decode = partial(pixels_of, self.vae)
        # diffusers' autoencoder decodes a batch of one video alone
        pixels = decode_in_chunks(decode, prefix, 1) if self.vae_slicing else torch.cat([*map(decode, prefix.split(1))])
        return pixels.transpose(1, 2)[:, list(chosen)]

    def fresh_network(self) -> Any:
        kind = HunyuanVideo15Transformer3DModel
        network: Any = freeze(self.folder.network(kind, "transformer", torch_dtype=self.dtype))
        return network.to(self.device)

    def pipeline_class(self) -> Any:
        return HunyuanVideo15Pipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        # without text encoders there is no negative prompt
        settings = self.guider | ({} if encoder else {"guidance_scale": 1.0})
        return HunyuanVideo15Pipeline(
            text_encoder=encoder.language if encoder else None,
            tokenizer=self.text.tokenizer,
            transformer=network,
            vae=self.vae,
            scheduler=FlowMatchEulerDiscreteScheduler.from_config(self.scheduler),
            text_encoder_2=encoder.byt5 if encoder else None,
            tokenizer_2=self.text.bytes,
            guider=ClassifierFreeGuidance.from_config(settings),
        )

    def preview(self, network: Any) -> Tensor:
        text = self.encode(["a photo"]).tensors["text"].to(self.dtype)
        # one token without quotes that is masked, since the pipeline takes no empty sequence
        glyphs = text.new_zeros(1, 1, self.transformer.config.text_embed_2_dim)
        return self.preview_by_pipeline(
            network,
            {"text": "prompt_embeds"},
            guided=False,
            prompt_embeds_mask=text.new_ones(text.shape[:2]),
            prompt_embeds_2=glyphs,
            prompt_embeds_mask_2=glyphs.new_zeros(1, 1),
            num_frames=self.size.frames,
        )


def _check(config: Any, path: str) -> None:
    if config.in_channels != 2 * config.out_channels + 1 or config.use_meanflow:
        raise ValueError(
            f"{path}/transformer/config.json: expected a model of text alone, which reads 2 x {config.out_channels} + 1 channels "
            f"and no second time, found in_channels: {config.in_channels} and use_meanflow: {config.use_meanflow}; take a "
            "text-to-video model"
        )
