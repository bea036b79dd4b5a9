r"""Stable Diffusion XL from folders in diffusers' layout, local or on the hub."""

from typing import Any, Literal, Self

import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig

from rlr.models.adapters import LoRA, Trainable
from rlr.models.base import Condition, Size
from rlr.models.discrete_scheduler import discrete_schedule, pipeline_scheduler
from rlr.models.folder import ModelFolder
from rlr.models.latent import ImageLatentDiffusion, latent_sides, load_autoencoder
from rlr.models.placement import TextPlacement
from rlr.models.prediction import slope
from rlr.models.sdxl_text import SDXLPrompts
from rlr.models.unets import check_sdxl_unet
from rlr.schedules import Schedule

KIND = "a Stable Diffusion XL"
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")


class StableDiffusionXL(ImageLatentDiffusion):
    r"""A latent diffusion model with a U-Net that reads two text encoders and the size of the image.

    Besides the states of both text encoders the U-Net reads the pooled embedding of the second, and six numbers: height and
    width of the original image, top and left of its crop, height and width of the sample. They are those of an image of the
    sample's size that was not cropped, as in the pipeline by default.

    Zeros stand for the embeddings of the empty prompt, where ``model_index.json`` states so (``force_zeros_for_empty_prompt``).
    What the network predicts and the noise schedule are read from the scheduler's configuration. With the published one, Euler's,
    the last state has no noise, and ``DDIM`` with ``eta: 0`` samples as ``StableDiffusionXLPipeline`` does.

    References:
        | SDXL: Improving Latent Diffusion Models for High-Resolution Image Synthesis (Podell et al., 2023)
        | https://arxiv.org/abs/2307.01952

    Args:
        path: A folder with ``unet/``, ``vae/``, ``scheduler/``, two text encoders and two tokenizers, or its name on the
            hub: ``stabilityai/stable-diffusion-xl-base-1.0``.
        trainable: The weights of the U-Net that are trained; by default ``LoRA()``.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, or height and width, multiples of 8; by default those of the U-Net's training, 1024.
        checkpointing: Whether the U-Net's blocks keep only their inputs and are computed again in the backward pass.
            It concerns steps with gradient, thus replayed ones; a rollout is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one image.
        vae_tiling: Whether latents larger than those of the autoencoder's training are decoded in overlapping tiles,
            which changes pixels near their seams.
        text: Where the text encoders and the embeddings are kept; by default ``WithModel()``.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model; also for float16 with an
            autoencoder that overflows in it, such as the published one.
    """

    network_class = UNet2DConditionModel
    unet: Any

    def __init__(
        self,
        path: str = "stabilityai/stable-diffusion-xl-base-1.0",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | tuple[int, int] | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        text: TextPlacement | None = None,
    ) -> None:
        folder = ModelFolder(path, KIND, PARTS, revision, variant)
        self._build(folder, trainable, getattr(torch, dtype), text)
        self.set_size(size)
        self.save_memory(checkpointing, vae_slicing, vae_tiling)

    @classmethod
    def from_pipeline(
        cls,
        pipe: StableDiffusionXLPipeline,
        trainable: Trainable | None = None,
        size: int | tuple[int, int] | None = None,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the U-Net gets the LoRA's layers, so that the
        pipeline itself makes the aligned images after training.

        Args:
            pipe: The pipeline.
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
        scheduler = folder.config(DDIMScheduler, "scheduler")
        noise_schedule, prediction = discrete_schedule(scheduler)
        unet = folder.network(self.network_class, "unet", torch_dtype=number)
        vae = load_autoencoder(folder, number, unet.config.in_channels)
        if number == torch.float16 and vae.config.force_upcast:
            raise ValueError(
                f"{folder.path}/vae/config.json sets force_upcast: expected a type in which this autoencoder does not overflow, "
                "got dtype: float16; use bfloat16, or an autoencoder that is made for float16"
            )
        configs = [folder.config(CLIPTextConfig, name) for name in ("text_encoder", "text_encoder_2")]
        widths = [config["hidden_size"] for config in configs]
        check_sdxl_unet(unet.config, sum(widths), configs[1]["projection_dim"], f"{folder.path}/unet/config.json")
        empty_as_zeros = bool(folder.index().get("force_zeros_for_empty_prompt", True))
        prompts = SDXLPrompts(folder, number, empty_as_zeros, text)
        super().__init__(prompts, vae, trainable or LoRA(), {"unet": unet})
        self.folder, self.scheduler = folder, scheduler
        self.noise_schedule, self.prediction = noise_schedule, prediction

    @property
    def default_size(self) -> Size:
        """The size of training."""
        return Size(self.unet.config.sample_size * self._factor, self.unet.config.sample_size * self._factor)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (self.unet.config.in_channels, *latent_sides(size, self._factor, "an image"))

    def schedule(self, size: Size) -> Schedule:
        return self.noise_schedule

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text, pooled = (condition.tensors[name].to(self.dtype) for name in ("text", "pooled"))
        added = {"text_embeds": pooled, "time_ids": self._sizes(x)}
        output = self.unet(x.to(self.dtype), int(time), text, added_cond_kwargs=added).sample
        return self.prediction(output.to(x.dtype), x, *self.noise_schedule.levels(time))

    def _sizes(self, x: Tensor) -> Tensor:
        r"""Returns :math:`(H, W, 0, 0, H, W)` of each latent, with shape :math:`(B, 6)`."""
        height, width = (side * self._factor for side in x.shape[-2:])
        return torch.tensor([[height, width, 0, 0, height, width]], device=x.device, dtype=self.dtype).repeat(len(x), 1)

    def skip(self, time: float) -> float:
        return slope(self.prediction, *self.noise_schedule.levels(time))

    def pipeline_class(self) -> Any:
        return StableDiffusionXLPipeline

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        tokenizer, tokenizer_2 = self.text.tokenizers
        return StableDiffusionXLPipeline(
            vae=self.vae,
            text_encoder=encoder.clip if encoder else None,
            text_encoder_2=encoder.clip_2 if encoder else None,
            tokenizer=tokenizer,
            tokenizer_2=tokenizer_2,
            unet=network,
            scheduler=pipeline_scheduler(self.scheduler),
            force_zeros_for_empty_prompt=self.text.empty_as_zeros,
            add_watermarker=False,
        )

    def preview(self, network: Any) -> Tensor:
        return self.preview_by_pipeline(network, {"text": "prompt_embeds", "pooled": "pooled_prompt_embeds"})
