r"""FLUX.1 from folders in diffusers' layout, local or on the hub."""

from typing import Any, Literal, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel
from torch import Tensor

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.flux_text import FluxPrompts
from rlr.models.folder import ModelFolder
from rlr.models.latent import ImageLatentDiffusion, latent_sides, load_autoencoder
from rlr.models.packing import PATCH, pack, unpack
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.models.tokens import positions
from rlr.schedules import Schedule, from_reciprocal

KIND = "a FLUX.1"
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
JOINT = tuple(
    f"attn.{name}"
    for name in ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
)
"""The projections of the attentions of both streams."""
TARGETS = (*JOINT, *(f"{stream}.net.{layer}" for stream in ("ff", "ff_context") for layer in ("0.proj", "2")))
"""The projections of all attentions, and the feed-forward layers of both streams."""
SIDE = 128
"""The latent's pixels of a side by default, as in the pipeline; no configuration states them."""


class Flux(ImageLatentDiffusion):
    r"""A rectified flow with a transformer of 2 × 2 patches, CLIP and T5, and an autoencoder of 16 channels.

    The network predicts the velocity :math:`v = \epsilon - x_0`; its time is :math:`\sigma`. FLUX.1-dev was distilled from
    guidance and reads the scale as a number: ``guidance`` costs no second evaluation. The wrapper ``Guidance`` around
    it is the pipeline's ``true_cfg_scale``. The grid is that of the pipeline, whose shift depends on the size of the image, so that
    ``FlowSDE`` with ``noise_level: 0`` samples as ``FluxPipeline`` does.

    References:
        | FLUX (Black Forest Labs, 2024)
        | https://github.com/black-forest-labs/flux

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``scheduler/``, two text encoders and two tokenizers, or its name on
            the hub: ``black-forest-labs/FLUX.1-dev``, ``black-forest-labs/FLUX.1-schnell``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the
            projections of the attentions and the feed-forward layers of both streams.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 16; by default 1024.
        checkpointing: Whether the transformer's blocks keep only their inputs and are computed again in the backward
            pass. It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        vae_tiling: Whether latents larger than those of the autoencoder's training are decoded in overlapping tiles,
            which changes pixels near their seams.
        guidance: The guidance scale that the network reads; unused by a network that reads none, such as FLUX.1-schnell.
        tokens: How many tokens of a prompt T5 reads, end included, 512 at most; FLUX.1-schnell was made for 256.
        text: Where the text encoders and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = FluxTransformer2DModel
    transformer: Any

    def __init__(
        self,
        path: str = "black-forest-labs/FLUX.1-dev",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        guidance: float = 3.5,
        tokens: int = 512,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, KIND, PARTS, revision, variant)
        self._build(folder, trainable, getattr(torch, dtype), tokens, text)
        self.guidance = guidance
        self.set_size(size)
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    @classmethod
    def from_pipeline(
        cls,
        pipe: FluxPipeline,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] | None = None,
        guidance: float = 3.5,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the transformer gets the LoRA's layers, so that
        the pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline.
            trainable: The weights of the transformer that are trained; by default as in the class.
            size: The pixels of a side, or height and width; by default 1024.
            guidance: The guidance scale that the network reads.

        Raises:
            ValueError: If the pipeline is of another kind, or its transformer has a LoRA already.
        """
        model = cls._of_pipeline(pipe, KIND, PARTS, trainable, 512, None)
        model.guidance = guidance
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
        transformer = folder.network(self.network_class, "transformer", torch_dtype=number)
        check_flow_scheduler(scheduler, "Flux")
        vae = load_autoencoder(folder, number, transformer.config.in_channels // PATCH**2)
        prompts = FluxPrompts(folder, number, tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler

    @property
    def default_size(self) -> Size:
        return Size(SIDE * self._factor, SIDE * self._factor)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        height, width = latent_sides(size, self._factor * PATCH, "an image")
        return (self.vae.config.latent_channels, height * PATCH, width * PATCH)

    def schedule(self, size: Size) -> Schedule:
        side = self._factor * PATCH
        return flow_schedule(self.scheduler, size.height // side * (size.width // side), from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text, pooled = (condition.tensors[name].to(self.dtype) for name in ("text", "pooled"))
        height, width = x.shape[-2:]
        output = self.transformer(
            hidden_states=self.for_pipeline(x.to(self.dtype)),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=x.new_full((len(x),), time, dtype=torch.float32),
            img_ids=positions((1, height // PATCH, width // PATCH), x.device),
            txt_ids=x.new_zeros((text.shape[1], 3), dtype=torch.long),
            guidance=guidance_of(self.transformer, self.guidance, x),
            return_dict=False,
        )[0]
        return flow(unpack(output, height, width).to(x.dtype), x, 1 - time, time)

    def for_pipeline(self, x: Tensor) -> Tensor:
        r"""Returns the tokens of latents, with shape :math:`(B, h w / 4, 4 C)`."""
        return pack(x)

    def pipeline_class(self) -> Any:
        return FluxPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        clip, t5 = self.text.tokenizers
        return FluxPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler.from_config(self.scheduler),
            vae=self.vae,
            text_encoder=encoder.clip if encoder else None,
            tokenizer=clip,
            text_encoder_2=encoder.t5 if encoder else None,
            tokenizer_2=t5,
            transformer=network,
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"})


def guidance_of(transformer: Any, scale: float, x: Tensor) -> Tensor | None:
    """Returns the guidance scale that a transformer reads for each latent; None if it reads none."""
    return x.new_full((len(x),), scale, dtype=torch.float32) if transformer.config.guidance_embeds else None
