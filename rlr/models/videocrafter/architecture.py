"""The sizes of a VideoCrafter: those that its authors published, or others from a file beside the weights."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import Any

from diffusers import AutoencoderKL, UNet3DConditionModel

from rlr.io.json_file import write_json
from rlr.models.prediction import Prediction, clean, noise, velocity
from rlr.models.videocrafter.network import UNetConfig, build_unet, unet_config
from rlr.models.videocrafter.text import TextTower
from rlr.schedules import Spacing, trailing, uniform

CONFIG = "config.json"
"""The file beside the weights that states the sizes of an unpublished model."""

PARAMETERIZATIONS: Mapping[str, Prediction] = MappingProxyType({"eps": noise, "v": velocity, "x0": clean})
"""What a denoiser may predict, under its authors' names."""
SPACINGS: Mapping[str, Spacing] = MappingProxyType({"uniform": uniform, "trailing": trailing})
"""How the times of the steps may be chosen; ``uniform`` is its authors' way."""


@dataclass(frozen=True)
class VAEConfig:
    """VideoCrafter's ``ddconfig``, under its authors' names.

    Args:
        ch: Channels at the highest resolution.
        ch_mult: By how much each level multiplies them; each level but the last halves the sides.
        num_res_blocks: Residual blocks of a level.
        z_channels: Channels of a latent.
        norm_groups: Groups of every group norm; its authors' models have 32.
        mid_attention: Whether the middle has attention, as in its authors' models.
    """

    ch: int = 128
    ch_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 4
    norm_groups: int = 32
    mid_attention: bool = True

    @property
    def factor(self) -> int:
        """Pixels of a side for one of the latent."""
        return 2 ** (len(self.ch_mult) - 1)


@dataclass(frozen=True)
class TextConfig:
    """The text tower's sizes, see :class:`~rlr.models.videocrafter.text.TextTower`."""

    vocabulary: int = 49408
    width: int = 1024
    heads: int = 16
    layers: int = 24
    length: int = 77
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class Architecture:
    r"""The sizes and settings of a VideoCrafter that its weights do not state.

    Args:
        unet: The denoiser's sizes.
        vae: The autoencoder's.
        text: The text tower's.
        scale_factor: The factor between the autoencoder's latents and the denoiser's.
        scale_b: The value to which the factor :math:`s_\tau` of the signal falls, from 1; None without rescaling.
        fix_scale_bug: Whether the file holds :math:`s_\tau` for each of the 1000 times, and not for 1400.
        parameterization: What the denoiser predicts: ``eps`` as in its authors' models, ``v`` or ``x0``.
        spacing: How the times of the steps are chosen: ``uniform`` as its authors do, or ``trailing``, which begins at pure
            noise however few steps there are.
        size: Height and width of the training videos, in pixels.
        frames: The number of frames of a training video.
        fps: The default of the frames a second that the denoiser reads.
        playback: The default of the frames a second of the samples' files.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    text: TextConfig = field(default_factory=TextConfig)
    scale_factor: float = 0.18215
    scale_b: float | None = 0.7
    fix_scale_bug: bool = False
    parameterization: str = "eps"
    spacing: str = "uniform"
    size: tuple[int, int] = (320, 512)
    frames: int = 16
    fps: float = 28.0
    playback: float = 10.0

    def __post_init__(self) -> None:
        for name, known in (("parameterization", PARAMETERIZATIONS), ("spacing", SPACINGS)):
            if (asked := getattr(self, name)) not in known:
                raise ValueError(
                    f"a VideoCrafter's {name} is one of {', '.join(known)}, and {CONFIG} asks for {name}={asked!r}"
                )

    @classmethod
    def read(cls, path: Path) -> "Architecture":
        """Returns the architecture that a file of :meth:`write` states; what it leaves out is as in VideoCrafter2.

        Raises:
            ValueError: If it is no such file.
        """
        parts: dict[str, Callable[..., Any]] = {"unet": unet_config, "vae": VAEConfig, "text": TextConfig}
        try:
            content = json.loads(path.read_text(), object_hook=_with_tuples)
            return cls(**{name: parts[name](**value) if name in parts else value for name, value in content.items()})
        except (ValueError, RecursionError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{path} does not describe a VideoCrafter ({error}); it may say "
                f"{', '.join(field.name for field in fields(cls))}, and without the file VideoCrafter2's are taken"
            ) from error

    def write(self, path: Path) -> None:
        """Writes the architecture as JSON."""
        write_json(path, asdict(self))

    @property
    def prediction(self) -> Prediction:
        """The estimate that follows from what the denoiser predicts."""
        return PARAMETERIZATIONS[self.parameterization]

    @property
    def multiple(self) -> int:
        """The number of pixels that divides the sides of a video."""
        return self.vae.factor * 2 ** (len(self.unet.channel_mult) - 1)

    @property
    def makers(self) -> Mapping[str, Callable[[], Any]]:
        """Functions that return denoiser, autoencoder and text tower, with weights as their libraries draw them."""
        return {"unet": self.build_unet, "vae": self.build_vae, "text": self.build_text}

    def build_unet(self) -> UNet3DConditionModel:
        """Returns a denoiser."""
        return build_unet(self.unet)

    def build_vae(self) -> AutoencoderKL:
        """Returns an autoencoder."""
        levels = len(self.vae.ch_mult)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(self.vae.ch * factor for factor in self.vae.ch_mult),
            layers_per_block=self.vae.num_res_blocks,
            latent_channels=self.vae.z_channels,
            norm_num_groups=self.vae.norm_groups,
            mid_block_add_attention=self.vae.mid_attention,
            scaling_factor=self.scale_factor,
        )

    def build_text(self) -> TextTower:
        """Returns a text tower."""
        return TextTower(**asdict(self.text))


def _with_tuples(content: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in content.items()}


FIRST = UNetConfig(temporal_conv=False, use_relative_position=True)


class Variant(Enum):
    """The text-to-video models that its authors published."""

    v2_512 = Architecture()
    v1_512 = Architecture(UNetConfig(temporal_conv=False, use_relative_position=True, fps_cond=False), scale_b=None)
    v1_1024 = Architecture(FIRST, scale_b=0.3, fix_scale_bug=True, size=(576, 1024))
