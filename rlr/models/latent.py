"""Latent diffusion: a text encoder, a denoiser, an autoencoder, and an adapter that holds the trained weights."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, ClassVar, Self, cast

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlr.io.weights import freeze
from rlr.models.adapters import ATTENTION, Trainable
from rlr.models.base import Condition, DiffusionModel, Size
from rlr.models.folder import ModelFolder
from rlr.models.loaded import loaded_pipeline
from rlr.models.text import PromptEncoder


class LatentDiffusion(DiffusionModel):
    """A diffusion model of an autoencoder's latents; families differ in their parts.

    A family assigns :attr:`size`, and defines the shape of its latents, its schedule, its denoiser and its decoder.

    Args:
        text: The text encoder.
        vae: The autoencoder.
        trainable: The weights of the denoiser that are trained.
        networks: The denoiser, by its name in diffusers.
        targets: The layers of the denoiser that a LoRA adds to by default, by the ends of their names.
    """

    vae: Any
    text: Any

    def __init__(
        self,
        text: PromptEncoder,
        vae: Any,
        trainable: Trainable,
        networks: Mapping[str, nn.Module],
        targets: Sequence[str] = ATTENTION,
    ) -> None:
        super().__init__()
        self._names = tuple(networks)
        for name, network in networks.items():
            self.add_module(name, freeze(network))
        self.vae = freeze(vae)
        self.text = text
        self.adapter = trainable
        for network, part in zip(self.networks().values(), trainable.for_each(len(networks)), strict=True):
            part.attach(network, targets)

    @classmethod
    def _of_pipeline(
        cls, pipe: Any, kind: str, parts: tuple[str, ...], trainable: Trainable | None, *settings: Any
    ) -> Self:
        """Returns the model of a pipeline in memory, to which the caller gives a size.

        Args:
            pipe: The pipeline.
            kind: What it is expected to be, for messages.
            parts: The names of its parts, the denoiser first.
            trainable: The weights of the denoiser that are trained.
            settings: The further arguments of the family's ``_build``.
        """
        model: Any = cls.__new__(cls)
        folder = loaded_pipeline(pipe, kind, parts, trainable)
        model._build(folder, trainable, folder.part(parts[0]).dtype, *settings)
        model.save_memory()
        return cast(Self, model)

    @property
    def network(self) -> Any:
        """The denoiser; several ones as an ``nn.ModuleDict`` by their names in diffusers."""
        networks = self.networks()
        return networks[self._names[0]] if len(networks) == 1 else nn.ModuleDict(networks)

    def named(self, network: Any) -> dict[str, Any]:
        """Returns the denoisers that :attr:`network` holds by their names in diffusers."""
        return {self._names[0]: network} if len(self._names) == 1 else dict(network.items())

    @property
    def dtype(self) -> torch.dtype:
        """The type of the frozen weights."""
        return next(self.vae.parameters()).dtype

    def networks(self) -> Mapping[str, nn.Module]:
        return {name: getattr(self, name) for name in self._names}

    def save_memory(self, checkpointing: bool = False, slicing: bool = False, tiling: bool = False) -> None:
        """Sets what trades time for memory.

        Args:
            checkpointing: Whether the blocks of the denoisers keep only their inputs and are computed again in the backward pass.
            slicing: Whether latents are decoded one by one.
            tiling: Whether large latents are decoded in overlapping tiles.
        """
        self.vae_slicing = slicing
        if checkpointing:
            for network in self.networks().values():
                cast(Any, network).enable_gradient_checkpointing()
        if tiling:
            self.vae.enable_tiling()

    def reference(self) -> AbstractContextManager[None]:
        return _all_of([self.adapter.reference(network) for network in self.networks().values()])

    def encode(self, prompts: Sequence[str]) -> Condition:
        return self.text(prompts)

    @property
    def source(self) -> str:
        """Where the base model comes from: a name on the hub, or a path."""
        return type(self).__name__

    def pipeline_class(self) -> Any:
        """Returns the class of the model's pipeline in diffusers.

        Raises:
            ValueError: If diffusers has no pipeline for the model.
        """
        raise ValueError(f"diffusers has no pipeline for {type(self).__name__}; export with PeftAdapter, or whole")

    def pipeline(self, network: Any, encoder: Any = None) -> Any:
        """Returns diffusers' own pipeline around a denoiser and an opened text encoder, or none."""
        return self.pipeline_class()

    def for_pipeline(self, x: Tensor) -> Tensor:
        """Returns latents in the layout in which the pipeline takes them; by default they are in it."""
        return x

    @abstractmethod
    def fresh_network(self) -> Any:
        """Returns the denoiser of the base model, read from its file once more."""

    @abstractmethod
    def preview(self, network: Any) -> Tensor:
        """Returns pixels that a denoiser of the model's class makes of a fixed prompt and noise, to compare two of them."""

    def preview_by_pipeline(
        self, network: Any, names: Mapping[str, str], steps: int = 2, guided: bool = True, **options: Any
    ) -> Tensor:
        """Returns :meth:`preview` as diffusers' pipeline makes it, in few steps and without guidance.

        Args:
            network: The denoiser.
            names: The pipeline's argument for each tensor of the condition; the pipeline needs no text encoder.
            steps: The number of steps.
            guided: Whether the pipeline has an argument ``guidance_scale``.
            options: Arguments of the pipeline, in the place of the usual ones.
        """
        shape = (1, *self.latent_shape(self.size))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        latents = self.for_pipeline(noise.to(self.device, self.dtype))
        tensors = self.encode(["a photo"]).tensors
        # masks stay as they are
        as_asked = (c.to(self.dtype) if c.is_floating_point() else c for c in map(tensors.__getitem__, names))
        condition = dict(zip(names.values(), as_asked, strict=True))
        pipeline = self.pipeline(network)
        pipeline.set_progress_bar_config(disable=True)
        size = {"height": self.size.height, "width": self.size.width}
        usual = {"latents": latents, "num_inference_steps": steps, "output_type": "pt", **size}
        usual |= {"guidance_scale": 1.0} if guided else {}
        pixels: Tensor = pipeline(**condition, **usual | options, return_dict=False)[0]
        return pixels


class ImageLatentDiffusion(LatentDiffusion):
    """Latent diffusion of images in a folder of diffusers' layout.

    A family names the class of its denoiser, and assigns :attr:`folder` and :attr:`vae_slicing`.
    """

    network_class: ClassVar[Any]
    """The class of the denoiser in diffusers."""
    folder: ModelFolder
    """The folder of the files."""
    vae_slicing: bool
    """Whether latents are decoded one by one."""

    @property
    def source(self) -> str:
        return self.folder.path

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        r"""Returns the pixels of diffusers' pipeline, with shape :math:`(B, 3, H, W)`; see :func:`decode_pixels`."""
        return decode_in_chunks(partial(decode_pixels, self.vae), x, 1 if self.vae_slicing else None)

    def fresh_network(self) -> Any:
        network: Any = freeze(self.folder.network(self.network_class, self._names[0], torch_dtype=self.dtype))
        return network.to(self.device)

    @property
    def default_size(self) -> Size:
        """The size of the samples where none is set; families whose files or pipelines state one define it."""
        raise NotImplementedError(f"{type(self).__name__} has no default size; set size, the pixels of a side")

    def set_size(self, size: int | tuple[int, int] | None) -> None:
        """Sets the size of the samples.

        Args:
            size: The pixels of a side, or height and width; None for :attr:`default_size`.

        Raises:
            ValueError: If the model has no samples of this size.
        """
        sides = (size, size) if isinstance(size, int) else size
        self.size = self.default_size if sides is None else Size(*sides)
        self.latent_shape(self.size)

    @property
    def _factor(self) -> int:
        """The pixels of a side for one of the latent."""
        factor: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return factor


class VideoLatentDiffusion(LatentDiffusion):
    """Latent diffusion of videos in a folder of diffusers' layout; a family assigns :attr:`folder`."""

    kind: ClassVar[str]
    """What messages call a folder of the family."""
    parts: ClassVar[tuple[str, ...]]
    """The names of its parts, the denoiser first."""
    standard: ClassVar[Size]
    """The size of the samples by default."""
    folder: ModelFolder
    """The folder of the files."""

    @classmethod
    def from_pipeline(
        cls,
        pipe: Any,
        trainable: Trainable | None = None,
        size: tuple[int, int] | None = None,
        frames: int | None = None,
        fps: float | None = None,
    ) -> Self:
        """Returns the model of a pipeline in memory.

        The networks of the pipeline are frozen and used as they are, not copied: the denoisers get the LoRA's layers, so that
        the pipeline itself makes the aligned videos after training.

        Args:
            pipe: The pipeline.
            trainable: The weights of the denoisers that are trained; by default as in the class.
            size: Height and width in pixels; by default as in the class, and so are the following.
            frames: The number of frames.
            fps: The frames a second of the samples.

        Raises:
            ValueError: If the pipeline is of another kind, or one of its denoisers has a LoRA already.
        """
        standard = cls.standard
        height, width = size or (standard.height, standard.width)
        frames, fps = (standard.frames if frames is None else frames), (standard.fps if fps is None else fps)
        model = cls._of_pipeline(pipe, cls.kind, cls.parts, trainable)
        model.set_size(Size(height, width, frames, fps))
        return model

    @property
    def source(self) -> str:
        return self.folder.path

    def set_size(self, size: Size) -> None:
        """Sets the size of the samples.

        Raises:
            ValueError: If the model has no samples of this size.
        """
        self.size = size
        self.latent_shape(size)


def load_autoencoder(
    folder: ModelFolder, dtype: torch.dtype, channels: int | None = None, kind: Any = AutoencoderKL
) -> Any:
    r"""Returns the autoencoder of a folder.

    Args:
        folder: The folder.
        dtype: The type of the weights.
        channels: The channels of the denoiser's latents, where they are to be compared.
        kind: The class of the autoencoder in diffusers.

    Raises:
        ValueError: If its images are not of three colors, or its latents have other channels.
    """
    vae = folder.network(kind, "vae", torch_dtype=dtype)
    config, source = vae.config, f"{folder.path}/vae/config.json"
    for name, found in (("in_channels", config.in_channels), ("out_channels", config.out_channels)):
        if found != 3:
            raise ValueError(
                f"{source} is of another autoencoder: expected images of 3 channels, found {name}: {found}; take vae/ "
                f"from {folder.kind}"
            )
    if channels not in (None, config.latent_channels):
        raise ValueError(
            f"{source}: expected latents of {channels} channels, as the denoiser has, found {config.latent_channels}; take "
            "both parts from one model"
        )
    return vae


@contextmanager
def _all_of(contexts: Sequence[AbstractContextManager[None]]) -> Iterator[None]:
    with ExitStack() as stack:
        for context in contexts:
            stack.enter_context(context)
        yield


def decode_pixels(vae: Any, x: Tensor) -> Tensor:
    r"""Returns pixels :math:`\mathrm{clamp}(D(x \sigma / s + b) / 2 + 1/2, 0, 1)` of latents of shape :math:`(B, C, h, w)`.

    :math:`s` and :math:`b` are the autoencoder's ``scaling_factor`` and ``shift_factor``. An autoencoder with a
    ``latents_mean`` and a ``latents_std`` of each channel has these as :math:`b` and :math:`\sigma`, else :math:`\sigma = 1`.
    Where the decoder leaves the range the clamp's gradient is 0: no reward is gained by making white whiter.
    """
    config = vae.config
    if config.latents_mean is None or config.latents_std is None:
        z = x / config.scaling_factor + (config.shift_factor or 0)
    else:
        mean, std = (x.new_tensor(values).view(1, -1, 1, 1) for values in (config.latents_mean, config.latents_std))
        z = x * std / config.scaling_factor + mean
    return pixels_of(vae, z)


def pixels_of(vae: Any, z: Tensor) -> Tensor:
    r"""Returns pixels :math:`\mathrm{clamp}(D(z) / 2 + 1/2, 0, 1)` of what the decoder reads."""
    weight = next(vae.parameters())
    return (vae.decode(z.to(weight.dtype)).sample.to(z.dtype) / 2 + 0.5).clamp(0, 1)


def decode_in_chunks(decode: Callable[[Tensor], Tensor], rows: Tensor, chunk: int | None) -> Tensor:
    r"""Decodes :math:`n` latents, ``chunk`` at once or all, with the memory of one chunk.

    Where a gradient is asked for, each of several chunks is decoded a second time in the backward pass.
    """
    chunks = rows.split(chunk or len(rows))
    if len(chunks) > 1 and torch.is_grad_enabled():
        decode = partial(checkpoint, decode, use_reentrant=False)
    return torch.cat([decode(part) for part in chunks])


def flow_pipeline(model: Any, network: Any, encoder: Any) -> Any:
    """Returns the pipeline of a flow with one text encoder, by ``model.pipeline_class()``, with the model's own other parts.

    Args:
        model: The model.
        network: The denoiser of the pipeline.
        encoder: The text encoder, which may be None.
    """
    return model.pipeline_class()(
        scheduler=FlowMatchEulerDiscreteScheduler.from_config(model.scheduler),
        vae=model.vae,
        text_encoder=encoder,
        tokenizer=model.text.tokenizer,
        transformer=network,
    )


def latent_frames(size: Size, stride: int, kind: str, unit: int | None = None) -> int:
    r"""Returns the number of frames of the latent of a video, :math:`(F - 1) / k + 1`.

    Args:
        size: The size of the video, of :math:`F` frames.
        stride: The frames :math:`k` of the video for one of the latent.
        kind: The model, for the message.
        unit: What :math:`F - 1` is a multiple of; by default :math:`k`.

    Raises:
        ValueError: If the number of frames does not fit.
    """
    unit = unit or stride
    if size.frames is None or size.frames < 1 or size.frames % unit != 1 % unit:
        raise ValueError(f"frames: expected a multiple of {unit} plus 1 for this {kind}, got {size.frames}")
    return (size.frames - 1) // stride + 1


def latent_sides(size: Size, factor: int, kind: str) -> tuple[int, int]:
    """Returns height and width of the latent of an image.

    Args:
        size: The size of the image.
        factor: The pixels of a side for one of the latent.
        kind: What the samples are, for the message.

    Raises:
        ValueError: If a side is not a positive multiple of ``factor``.
    """
    if any(side < factor or side % factor for side in (size.height, size.width)):
        raise ValueError(
            f"size: height and width of {kind} must be positive multiples of {factor} pixels, and {size.height} x "
            f"{size.width} are not"
        )
    return size.height // factor, size.width // factor
