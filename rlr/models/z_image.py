r"""Z-Image and Z-Image-Turbo from folders in diffusers' layout, local or on the hub."""

from functools import partial
from typing import Any, Literal, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel
from torch import Tensor
from transformers import Qwen2Tokenizer, Qwen3Model

from rlr.models.adapters import ATTENTION, LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.language_text import LanguagePrompts, sequences
from rlr.models.latent import ImageLatentDiffusion, flow_pipeline, latent_sides, load_autoencoder
from rlr.models.packing import PATCH
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.schedules import Schedule, from_reciprocal

KIND = "a Z-Image"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
SIDE = 1024
"""The pixels of a side by default, as in diffusers; the configuration states none."""


class ZImage(ImageLatentDiffusion):
    r"""A rectified flow with a transformer of one stream, the language model Qwen3, and an autoencoder of 16 channels.

    The network predicts :math:`-v`, the negated velocity :math:`v = \epsilon - x_0`, and its time is :math:`1 - \sigma`. The
    grid is that of the pipeline, so that ``FlowSDE`` with ``noise_level: 0`` samples as ``ZImagePipeline`` does.

    The pipeline's guidance is :math:`F(c) + s \, (F(c) - F(\varnothing))`, that of
    :class:`~rlr.models.Guidance` with the scale :math:`1 + s`: its ``guidance_scale=4`` is ``scale: 5`` here, and its 0,
    which Turbo has, is ``scale: 1``.

    References:
        | Z-Image: An Efficient Image Generation Foundation Model with Single-Stream Diffusion Transformer (Z-Image Team, 2025)
        | https://arxiv.org/abs/2511.22699

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on
            the hub: ``Tongyi-MAI/Z-Image``, ``Tongyi-MAI/Z-Image-Turbo``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the
            projections of all attentions.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 16.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        vae_tiling: Whether large latents are decoded in overlapping tiles, which changes pixels near their seams.
        tokens: How many tokens of a prompt the text encoder reads, those of its template included.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = ZImageTransformer2DModel
    transformer: Any

    def __init__(
        self,
        path: str = "Tongyi-MAI/Z-Image",
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
        pipe: ZImagePipeline,
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
        check_flow_scheduler(scheduler, "ZImage")
        transformer = folder.network(self.network_class, "transformer", torch_dtype=number)
        vae = load_autoencoder(folder, number, transformer.config.in_channels)
        prompts = _prompts(folder, number, tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, ATTENTION)
        self.folder, self.scheduler = folder, scheduler

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        height, width = latent_sides(size, self._factor * PATCH, "an image")
        return (self.transformer.config.in_channels, height * PATCH, width * PATCH)

    def schedule(self, size: Size) -> Schedule:
        side = self._factor * PATCH
        return flow_schedule(self.scheduler, size.height // side * (size.width // side), from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        output = self.transformer(
            list(x.to(self.dtype).unsqueeze(2)),
            torch.full((len(x),), 1 - time, device=x.device, dtype=torch.float32),
            sequences(condition, "text", self.dtype),
            return_dict=False,
        )[0]
        velocity = -torch.stack(output).squeeze(2).to(x.dtype)
        return flow(velocity, x, 1 - time, time)

    def pipeline_class(self) -> Any:
        return ZImagePipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        return flow_pipeline(self, network, encoder)

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"}, guidance_scale=0.0)


def _prompts(folder: ModelFolder, dtype: torch.dtype, tokens: int, text: TextPlacement | None) -> LanguagePrompts:
    tokenizer = folder.tokenizer(Qwen2Tokenizer)
    load = partial(folder.network, Qwen3Model, "text_encoder", dtype=dtype)
    identity = f"{folder.fingerprint('text_encoder')} {dtype} {tokens}"
    return LanguagePrompts(load, tokenizer, partial(_question, tokenizer), -2, 0, tokens, identity, text)


def _question(tokenizer: Any, prompt: str) -> str:
    """Returns the prompt as a user's message to the language model, as the pipeline asks it."""
    messages = [{"role": "user", "content": prompt}]
    options = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": True}
    text: str = tokenizer.apply_chat_template(messages, **options)
    return text
