r"""FLUX.2 from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from torch import Tensor

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.flow_scheduler import check_flow_scheduler, flow_schedule
from rlr.models.flux import JOINT, SIDE, guidance_of
from rlr.models.flux2_text import Flux2Prompts, reader_of
from rlr.models.folder import ModelFolder
from rlr.models.latent import ImageLatentDiffusion, decode_in_chunks, latent_sides, load_autoencoder, pixels_of
from rlr.models.packing import PATCH
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow
from rlr.models.tokens import from_tokens, positions, to_tokens, unpatchify
from rlr.schedules import FlowMatch, Schedule, empirical_shift, from_reciprocal

KIND = "a FLUX.2"
PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")
FEED_FORWARD = ("ff.linear_in", "ff.linear_out", "ff_context.linear_in", "ff_context.linear_out")
TARGETS = (*JOINT, *FEED_FORWARD, "attn.to_qkv_mlp_proj")
"""The layers of the blocks of two streams, and the input layer of those of one stream."""


class Flux2(ImageLatentDiffusion):
    r"""A rectified flow with a transformer, a language model, and an autoencoder of normalized 2 × 2 patches.

    A latent has the shape :math:`(128, H / 16, W / 16)`: the patches of the autoencoder's 32 channels, less the mean and over the
    standard deviation of its batch norm. The network predicts the velocity :math:`v = \epsilon - x_0`; its time is
    :math:`\sigma`. The grid is that of the pipeline, whose shift depends on the size of the image and on the number of steps, so
    that ``FlowSDE`` with ``noise_level: 0`` samples as diffusers' pipelines do.

    FLUX.2-klein-base is guided by the wrapper ``Guidance`` with the pipeline's ``guidance_scale``. FLUX.2-klein was distilled to
    four steps without guidance. FLUX.2-dev reads the scale as a number, ``guidance``.

    References:
        | FLUX.2 (Black Forest Labs, 2025)
        | https://github.com/black-forest-labs/flux2

    Args:
        path: A folder with ``transformer/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on the
            hub: ``black-forest-labs/FLUX.2-klein-base-4B``, ``…-klein-base-9B``, ``…-klein-4B``, ``…-klein-9B``, ``…-dev``.
        trainable: The weights of the transformer that are trained; by default ``LoRA(rank=64, alpha=128)`` on the
            projections of the joint attentions, the feed-forward layers and the input layer of the blocks of one stream.
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
        guidance: The guidance scale that the network reads; unused by a network that reads none, such as FLUX.2-klein.
        tokens: How many tokens the text encoder reads, those around the prompt included.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = Flux2Transformer2DModel
    transformer: Any

    def __init__(
        self,
        path: str = "black-forest-labs/FLUX.2-klein-base-4B",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        guidance: float = 4.0,
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
        pipe: Any,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] | None = None,
        guidance: float = 4.0,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the transformer gets the LoRA's layers, so that
        the pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline, a ``Flux2KleinPipeline`` or a ``Flux2Pipeline``.
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
        check_flow_scheduler(scheduler, "Flux2")
        vae = load_autoencoder(folder, number, transformer.config.in_channels // PATCH**2, AutoencoderKLFlux2)
        prompts = Flux2Prompts(folder, number, reader_of(folder), tokens, text)
        super().__init__(prompts, vae, trainable or LoRA(64, 128), {"transformer": transformer}, TARGETS)
        self.folder, self.scheduler = folder, scheduler

    @property
    def default_size(self) -> Size:
        return Size(SIDE * self._factor, SIDE * self._factor)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        sides = latent_sides(size, self._factor * PATCH, "an image")
        return (self.transformer.config.in_channels, *sides)

    def schedule(self, size: Size) -> Schedule:
        _, height, width = self.latent_shape(size)
        if not self.scheduler.get("use_dynamic_shifting"):
            return flow_schedule(self.scheduler, height * width, from_reciprocal)
        return FlowMatch(mu=partial(empirical_shift, height * width), spacing=from_reciprocal)

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text, (height, width) = condition.tensors["text"].to(self.dtype), x.shape[-2:]
        output = self.transformer(
            hidden_states=to_tokens(x.to(self.dtype)),
            encoder_hidden_states=text,
            timestep=x.new_full((len(x),), time, dtype=torch.float32),
            img_ids=positions((1, height, width, 1), x.device),
            txt_ids=positions((1, 1, 1, text.shape[1]), x.device),
            guidance=guidance_of(self.transformer, self.guidance, x),
            return_dict=False,
        )[0]
        return flow(from_tokens(output, height, width).to(x.dtype), x, 1 - time, time)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return decode_in_chunks(self._pixels, x, 1 if self.vae_slicing else None)

    def _pixels(self, x: Tensor) -> Tensor:
        r"""Returns the pixels of latents :math:`x`, decoded from the pixels of the patches :math:`\sigma x + \mu`."""
        norm = self.vae.bn
        mean, variance = (values.to(x.dtype).view(1, -1, 1, 1) for values in (norm.running_mean, norm.running_var))
        return pixels_of(self.vae, unpatchify(x * (variance + self.vae.config.batch_norm_eps).sqrt() + mean))

    def pipeline_class(self) -> Any:
        return self.text.reader.pipeline_class

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        # whether a klein was distilled stands in the pipeline's configuration alone
        stated = {name: value for name, value in self.folder.index().items() if name == "is_distilled"}
        return self.pipeline_class()(
            scheduler=FlowMatchEulerDiscreteScheduler.from_config(self.scheduler),
            vae=self.vae,
            text_encoder=encoder,
            tokenizer=self.text.reader.tokenizer,
            transformer=network,
            **stated,
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"})
