"""The sizes of a VideoCrafter: those that its authors published, or others from a file beside the weights."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL

from rlr.models.videocrafter.keys import Layout, unet_layout, vae_layout
from rlr.models.videocrafter.network import UNetConfig, build_unet
from rlr.models.videocrafter.text import TextTower

CONFIG = "config.json"
"""The file beside the weights that says their sizes, if they are none of the published."""


@dataclass(frozen=True)
class VAEConfig:
    """VideoCrafter's ``ddconfig``, under its authors' names.

    Args:
        ch: Channels at the highest resolution.
        ch_mult: By how much each level multiplies them; each level but the last halves the sides.
        num_res_blocks: Residual blocks of a level.
        z_channels: Channels of a latent.
        norm_groups: Groups of every group norm; its authors know no other number than 32.
        mid_attention: Whether the middle has attention; its authors' always has.
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
    r"""What the weights of a VideoCrafter do not say of themselves.

    Args:
        unet: The denoiser's sizes.
        vae: The autoencoder's.
        text: The text tower's.
        scale_factor: What the autoencoder's latents are multiplied by for the denoiser.
        use_scale: Whether latents are rescaled by :math:`s_\tau` in noising.
        parameterization: What the denoiser predicts: ``eps``, its authors' only choice, or ``v``.
        size: Height and width of the videos that it was trained on, in pixels.
        frames: Their frames.
        fps: The frames a second that it is asked for by default.
    """

    unet: UNetConfig = field(default_factory=UNetConfig)
    vae: VAEConfig = field(default_factory=VAEConfig)
    text: TextConfig = field(default_factory=TextConfig)
    scale_factor: float = 0.18215
    use_scale: bool = True
    parameterization: str = "eps"
    size: Sequence[int] = (320, 512)
    frames: int = 16
    fps: float = 28

    @classmethod
    def read(cls, path: Path) -> "Architecture":
        """Returns the architecture that a file of :meth:`write` states; what it leaves out is as in VideoCrafter2.

        Raises:
            ValueError: If it is no such file.
        """
        try:
            content = json.loads(path.read_text())
            parts = {"unet": UNetConfig, "vae": VAEConfig, "text": TextConfig}
            return cls(**{name: parts[name](**v) if name in parts else v for name, v in content.items()})
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(
                f"{path} does not describe a VideoCrafter ({error}); it holds an object with "
                f"{', '.join(field.name for field in fields(cls))}"
            ) from error

    def write(self, path: Path) -> None:
        """Writes the architecture as JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @property
    def layouts(self) -> dict[str, Layout]:
        """The names of the weights of each part."""
        vae = vae_layout(len(self.vae.ch_mult), self.vae.num_res_blocks)
        return {"unet": unet_layout(self.unet), "vae": vae, "text": Layout({})}

    def build_unet(self) -> Any:
        """Returns a denoiser with weights as its libraries draw them."""
        return build_unet(self.unet)

    def build_vae(self) -> AutoencoderKL:
        """Returns an autoencoder with weights as its library draws them."""
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
        """Returns a text tower with weights as its library draws them."""
        return TextTower(**asdict(self.text))
