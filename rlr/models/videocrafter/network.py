r"""VideoCrafter's denoiser as diffusers' ``UNet3DConditionModel``, to which the frame rate's embedding is added.

Both descend from ModelScope's text-to-video model: blocks, norms, order and initial temporal transformer are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UNet3DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from torch import Tensor, nn

from rlr.models.videocrafter.positions import learn_positions


@dataclass(frozen=True)
class UNetConfig:
    """VideoCrafter's ``unet_config``, under its authors' names.

    Args:
        model_channels: Channels at the highest resolution, a multiple of ``norm_groups``.
        channel_mult: By how much each level multiplies them.
        num_res_blocks: Residual blocks of a level.
        attention_resolutions: The down-sampling rates (1, 2, 4, …) at which there is attention; the middle always has.
        num_head_channels: Channels of an attention head.
        context_dim: Width of the text embedding.
        fps_cond: Whether the frame rate is an input.
        in_channels: Channels of a latent.
        norm_groups: Groups of every group norm; its authors' models have 32.
        temporal_conv: Whether a convolution over frames follows each residual block (VideoCrafter2).
        use_relative_position: Whether temporal attention learns relative positions (VideoCrafter1).
        temporal_length: The distance in frames beyond which relative positions are equal.
    """

    model_channels: int = 320
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: Sequence[int] = (4, 2, 1)
    num_head_channels: int = 64
    context_dim: int = 1024
    fps_cond: bool = True
    in_channels: int = 4
    norm_groups: int = 32
    temporal_conv: bool = True
    use_relative_position: bool = False
    temporal_length: int = 16

    @property
    def attended(self) -> tuple[bool, ...]:
        """For each level, from the highest resolution, whether it has attention."""
        return tuple(2**level in self.attention_resolutions for level in range(len(self.channel_mult)))

    @property
    def guidance(self) -> int | None:
        """The width of the embedding of a guidance scale that is an input; None without one."""
        return None


@dataclass(frozen=True)
class GuidedUNetConfig(UNetConfig):
    """That of a network that reads a guidance scale, as T2V-Turbo's.

    Args:
        time_cond_proj_dim: The width of its embedding.
    """

    time_cond_proj_dim: int = 256

    @property
    def guidance(self) -> int | None:
        return self.time_cond_proj_dim


def unet_config(**settings: Any) -> UNetConfig:
    """Returns what settings under the authors' names describe."""
    return (GuidedUNetConfig if "time_cond_proj_dim" in settings else UNetConfig)(**settings)


class RatedTimeEmbedding(nn.Module):
    r"""The embedding of step and frame rate, :math:`\mathrm{MLP}_1(s(\tau) + A e) + \mathrm{MLP}_2(s(f))` with sinusoids :math:`s`.

    :math:`e` is the embedding of the guidance scale in a network that reads one, else 0.

    Args:
        time: The network's own embedding of the step and of :math:`e`.
        width: Width of the sinusoids.
        out: Width of the embedding.
    """

    def __init__(self, time: TimestepEmbedding, width: int, out: int) -> None:
        super().__init__()
        self.time = time
        self.fps = TimestepEmbedding(width, out)

    def forward(self, time: Tensor, condition: Tensor) -> Tensor:
        r"""Returns the embedding.

        Args:
            time: Sinusoids of the step, with shape :math:`(B, W)`.
            condition: Sinusoids of the frame rate, and after them :math:`e` if there is one, with shape :math:`(B, W + E)`.
        """
        fps, guidance = condition.tensor_split([time.shape[-1]], -1)
        return self.time(time, guidance if guidance.shape[-1] else None) + self.fps(fps)


def build_unet(config: UNetConfig) -> UNet3DConditionModel:
    """Returns a denoiser with weights as its libraries draw them; :func:`call` calls it."""
    kinds = ["CrossAttn" if attended else "" for attended in config.attended]
    unet = UNet3DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.in_channels,
        down_block_types=tuple(f"{kind}DownBlock3D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock3D" for kind in reversed(kinds)),
        block_out_channels=tuple(config.model_channels * factor for factor in config.channel_mult),
        layers_per_block=config.num_res_blocks,
        norm_num_groups=config.norm_groups,
        cross_attention_dim=config.context_dim,
        # in the three-dimensional blocks this is the size of a head
        attention_head_dim=config.num_head_channels,
        time_cond_proj_dim=config.guidance,
    )
    if config.fps_cond:
        unet.time_embedding = RatedTimeEmbedding(unet.time_embedding, config.model_channels, 4 * config.model_channels)
    if not config.temporal_conv:
        remove_temporal_convs(unet)
    if config.use_relative_position:
        learn_positions(unet, config.temporal_length)
    return unet


class Still(nn.Module):
    """The identity, in place of a convolution over frames."""

    def forward(self, hidden_states: Tensor, num_frames: int = 1) -> Tensor:
        """Returns its input."""
        return hidden_states


def remove_temporal_convs(unet: UNet3DConditionModel) -> None:
    """Removes the convolutions over frames from a denoiser."""
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        block.temp_convs = nn.ModuleList(Still() for _ in block.temp_convs)


def call(
    unet: UNet3DConditionModel, x: Tensor, time: Tensor, text: Tensor, fps: Tensor, guidance: Tensor | None = None
) -> Tensor:
    r"""Returns the network's output.

    Args:
        unet: What :func:`build_unet` returned.
        x: Noisy latents, with shape :math:`(B, C, F, h, w)`.
        time: The network's times, with shape :math:`(B)` or ().
        text: The text embeddings, with shape :math:`(B, L, D)`.
        fps: Frames a second, with shape :math:`(B)`; unused by a network without ``fps_cond``.
        guidance: The embedding of the guidance scale, with shape :math:`(B, E)`, for a network that reads one.
    """
    rated = isinstance(unet.time_embedding, RatedTimeEmbedding)
    given = [unet.time_proj(fps)] * rated + ([] if guidance is None else [guidance])
    condition = torch.cat([part.to(x.dtype) for part in given], -1) if given else None
    return unet(x, time, text, timestep_cond=condition, return_dict=False)[0]
