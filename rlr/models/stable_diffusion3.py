r"""Stable Diffusion 3 and 3.5 from folders in diffusers' layout, local or on the hub."""

from typing import Any, Literal, Self

import torch
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from torch import Tensor

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.folder import ModelFolder
from rlr.models.latent import ImageLatentDiffusion, latent_sides, load_autoencoder
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.models.sd3_text import SD3Prompts
from rlr.schedules import Schedule

KIND = "a Stable Diffusion 3"
ENCODERS = ("text_encoder", "text_encoder_2", "text_encoder_3")
PARTS = ("transformer", "vae", *ENCODERS, "tokenizer", "tokenizer_2", "tokenizer_3", "scheduler")
TARGETS = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""The projections of the joint attentions, image and text stream."""


class StableDiffusion3(ImageLatentDiffusion):
    r"""A rectified flow with a transformer, two CLIP text encoders and T5, and an autoencoder of 16 channels.

    The network predicts the velocity :math:`v = \epsilon - x_0`; its time is :math:`1000 \sigma`. The grid is that of
    diffusers' scheduler with the shift that the scheduler's configuration states, so that ``FlowSDE`` with
    ``noise_level: 0`` samples as ``StableDiffusion3Pipeline`` does. CLIP reads the first 77 tokens of a prompt, T5 more.

    References:
        | Scaling Rectified Flow Transformers for High-Resolution Image Synthesis (Esser et al., 2024)
        | https://arxiv.org/abs/2403.03206

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``scheduler/``, three text encoders and three tokenizers, or its
            name on the hub: ``stabilityai/stable-diffusion-3.5-medium``, ``stabilityai/stable-diffusion-3.5-large``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=32, alpha=64)`` on the
            projections of the joint attentions.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 16; by default those of training.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        vae_tiling: Whether latents larger than those of the autoencoder's training are decoded in overlapping tiles,
            which changes pixels near their seams.
        t5: Whether T5 is loaded (9.5 GB in half precision for the published models); without it zeros stand in place of
            its embeddings, as in diffusers.
        tokens: How many tokens of a prompt T5 reads, end included.
        text: Where the text encoders and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = SD3Transformer2DModel
    transformer: Any

    def __init__(
        self,
        path: str = "stabilityai/stable-diffusion-3.5-medium",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        t5: bool = True,
        tokens: int = 256,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, KIND, PARTS, revision, variant)
        self._build(folder, trainable, getattr(torch, dtype), t5, tokens, text)
        self.set_size(size)
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    @classmethod
    def from_pipeline(
        cls,
        pipe: StableDiffusion3Pipeline,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Self:
        """Returns the model of a pipeline in memory; T5 is used if the pipeline has it.

        The networks of the pipeline are frozen and used as they are, not copied: the transformer gets the LoRA's layers, so that
        the pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline.
            trainable: The weights of the transformer that are trained; by default as in the class.
            size: The pixels of a side, or height and width; by default those of training.

        Raises:
            ValueError: If the pipeline is of another kind, or its transformer has a LoRA already.
        """
        t5 = getattr(pipe, "text_encoder_3", None) is not None
        model = cls._of_pipeline(pipe, KIND, PARTS, trainable, t5, 256, None)
        model.set_size(size)
        return model

    def _build(
        self,
        folder: ModelFolder,
        trainable: Trainable | None,
        number: torch.dtype,
        t5: bool,
        tokens: int,
        text: TextPlacement | None,
    ) -> None:
        """Reads the parts of a folder."""
        scheduler = folder.config(FlowMatchEulerDiscreteScheduler, "scheduler")
        transformer = folder.network(self.network_class, "transformer", torch_dtype=number)
        check_flow_scheduler(scheduler, "StableDiffusion3")
        vae = load_autoencoder(folder, number, transformer.config.in_channels)
        prompts = SD3Prompts(folder, number, transformer.config.joint_attention_dim, t5, tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(32, 64), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        config = self.transformer.config
        height, width = latent_sides(size, self._factor * config.patch_size, "an image")
        if max(height, width) > config.pos_embed_max_size:
            raise ValueError(
                f"size: this transformer has positions for {config.pos_embed_max_size} tokens a side, and {size.height} x "
                f"{size.width} pixels need {max(height, width)}; choose a smaller size"
            )
        return (config.in_channels, height * config.patch_size, width * config.patch_size)

    def schedule(self, size: Size) -> Schedule:
        side = self._factor * self.transformer.config.patch_size
        return flow_schedule(self.scheduler, size.height // side * (size.width // side))

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        output = self.transformer(
            hidden_states=x.to(self.dtype),
            timestep=torch.full((len(x),), time, device=x.device, dtype=torch.float32) * 1000,
            encoder_hidden_states=condition.tensors["text"].to(self.dtype),
            pooled_projections=condition.tensors["pooled"].to(self.dtype),
            return_dict=False,
        )[0]
        return flow(output.to(x.dtype), x, 1 - time, time)

    def pipeline_class(self) -> Any:
        return StableDiffusion3Pipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        first, second, third = self.text.tokenizers
        clip, clip_2, t5 = (encoder.clip, encoder.clip_2, encoder.t5) if encoder else (None, None, None)
        return StableDiffusion3Pipeline(
            transformer=network,
            scheduler=FlowMatchEulerDiscreteScheduler.from_config(self.scheduler),
            vae=self.vae,
            text_encoder=clip,
            tokenizer=first,
            text_encoder_2=clip_2,
            tokenizer_2=second,
            text_encoder_3=t5,
            tokenizer_3=third,
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"})

    @property
    def default_size(self) -> Size:
        """The size of training."""
        trained = self.transformer.config.sample_size * self._factor
        return Size(trained, trained)
