r"""Qwen-Image from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from diffusers import (
    AutoencoderKLQwenImage,
    FlowMatchEulerDiscreteScheduler,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
)
from torch import Tensor
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2Tokenizer

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.causal_vae import decode_causal, load_causal_autoencoder
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.language_text import LanguagePrompts
from rlr.models.latent import ImageLatentDiffusion, decode_in_chunks, flow_pipeline, latent_sides
from rlr.models.packing import PATCH, pack, unpack
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.schedules import Schedule, from_reciprocal

KIND = "a Qwen-Image"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
SIDE = 1024
"""The pixels of a side by default, as in diffusers; the configuration states none."""
TARGETS = (
    *(f"attn.to_{name}" for name in ("q", "k", "v", "out.0", "add_out")),
    *(f"attn.add_{name}_proj" for name in ("q", "k", "v")),
    *(f"{stream}_mlp.net.{layer}" for stream in ("img", "txt") for layer in ("0.proj", "2")),
)
"""The projections of the joint attentions and the layers after them, image and text stream."""
TEMPLATE = (
    "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial "
    "relationships of the objects and background:<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
)
"""What the language model reads for a prompt."""
INSTRUCTION = 34
"""The number of tokens before the prompt, which the transformer does not read."""


class QwenImage(ImageLatentDiffusion):
    r"""A rectified flow with a transformer of two streams, the language model Qwen2.5-VL, and Wan's autoencoder of 16 channels.

    The network predicts the velocity :math:`v = \epsilon - x_0` of tokens, squares of 2 x 2 pixels of the latent; its time is
    :math:`\sigma`. The text has a length of its own for each prompt, with a mask. The grid's shift depends on the size, as in
    the pipeline, so that ``FlowSDE`` with ``noise_level: 0`` samples as ``QwenImagePipeline`` does. Its guidance is
    :class:`~rlr.models.RescaledGuidance`.

    References:
        | Qwen-Image Technical Report (Wu et al., 2025)
        | https://arxiv.org/abs/2508.02324

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on
            the hub: ``Qwen/Qwen-Image``, ``Qwen/Qwen-Image-2512``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the
            projections of the joint attentions and the layers after them.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 16.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        vae_tiling: Whether large latents are decoded in overlapping tiles, which changes pixels near their seams.
        tokens: How many tokens :math:`L` of a prompt are read, the end of the template included.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = QwenImageTransformer2DModel
    transformer: Any

    def __init__(
        self,
        path: str = "Qwen/Qwen-Image",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] = SIDE,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        tokens: int = 512,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, KIND, PARTS, revision, variant)
        self._build(folder, trainable, getattr(torch, dtype), tokens, text)
        self.set_size(size)
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    @classmethod
    def from_pipeline(
        cls,
        pipe: QwenImagePipeline,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] = SIDE,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the transformer gets the LoRA's layers, so that
        the pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline.
            trainable: The weights of the transformer that are trained; by default as in the class.
            size: The pixels of a side, or height and width.

        Raises:
            ValueError: If the pipeline is of another kind, or its transformer has a LoRA already.
        """
        model = cls._of_pipeline(pipe, KIND, PARTS, trainable, 512, None)
        model.set_size(size)
        return model

    def _build(
        self,
        folder: ModelFolder,
        trainable: Trainable | None,
        number: torch.dtype,
        tokens: int,
        text: TextPlacement | None,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler = folder.config(FlowMatchEulerDiscreteScheduler, "scheduler")
        check_flow_scheduler(scheduler, "QwenImage")
        transformer = folder.network(self.network_class, "transformer", torch_dtype=number)
        channels = transformer.config.in_channels // PATCH**2
        vae = load_causal_autoencoder(folder, AutoencoderKLQwenImage, number, channels)
        prompts = _prompts(folder, number, tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        height, width = latent_sides(size, self._factor * PATCH, "an image")
        return (self.vae.config.z_dim, height * PATCH, width * PATCH)

    def schedule(self, size: Size) -> Schedule:
        side = self._factor * PATCH
        return flow_schedule(self.scheduler, size.height // side * (size.width // side), from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        height, width = x.shape[-2:]
        output = self.transformer(
            hidden_states=pack(x.to(self.dtype)),
            timestep=torch.full((len(x),), time, device=x.device, dtype=torch.float32),
            encoder_hidden_states=condition.tensors["text"].to(self.dtype),
            encoder_hidden_states_mask=condition.mask("text"),
            img_shapes=[[(1, height // PATCH, width // PATCH)]] * len(x),
            return_dict=False,
        )[0]
        return flow(unpack(output, height, width).to(x.dtype), x, 1 - time, time)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns the pixels of diffusers' pipeline, with shape :math:`(B, 3, H, W)`."""
        pixels = decode_in_chunks(partial(decode_causal, self.vae), x.unsqueeze(2), 1 if self.vae_slicing else None)
        return pixels[:, :, 0]

    @property
    def _factor(self) -> int:
        factor: int = 2 ** len(self.vae.config.temperal_downsample)
        return factor

    def pipeline_class(self) -> Any:
        return QwenImagePipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        return flow_pipeline(self, network, encoder)

    def for_pipeline(self, x: Tensor) -> Tensor:
        return pack(x)

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"}, guidance_scale=None)


def _prompts(folder: ModelFolder, dtype: torch.dtype, tokens: int, text: TextPlacement | None) -> LanguagePrompts:
    tokenizer, length = folder.tokenizer(Qwen2Tokenizer), INSTRUCTION + tokens
    load = partial(folder.network, Qwen2_5_VLForConditionalGeneration, "text_encoder", dtype=dtype)
    identity = f"{folder.fingerprint('text_encoder')} {dtype} {tokens}"
    return LanguagePrompts(load, tokenizer, TEMPLATE.format, -1, INSTRUCTION, length, identity, text)
