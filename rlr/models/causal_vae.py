"""Autoencoders of videos that are causal in time, as of Wan and Qwen-Image: an image is a video of one frame."""

from typing import Any

import torch
from torch import Tensor

from rlr.models.folder import ModelFolder


def load_causal_autoencoder(folder: ModelFolder, kind: Any, dtype: torch.dtype, channels: int) -> Any:
    """Returns the autoencoder of a folder.

    Args:
        folder: The folder.
        kind: The class of the autoencoder in diffusers.
        dtype: The type of the weights.
        channels: The channels of the denoiser's latents.

    Raises:
        ValueError: If its latents have other channels.
    """
    vae = folder.network(kind, "vae", torch_dtype=dtype)
    if vae.config.z_dim != channels:
        raise ValueError(
            f"{folder.path}/vae/config.json: expected latents of {channels} channels, as the denoiser has, found "
            f"{vae.config.z_dim}; take both parts from one model"
        )
    return vae


def decode_causal(vae: Any, x: Tensor) -> Tensor:
    r"""Returns pixels :math:`\mathrm{clamp}(D(x \sigma + b) / 2 + 1/2, 0, 1)` of the latents of videos.

    :math:`b` and :math:`\sigma` are the ``latents_mean`` and ``latents_std`` of each channel. Where the decoder leaves the
    range the clamp's gradient is 0.

    Args:
        vae: The autoencoder.
        x: The latents, with shape :math:`(B, C, f, h, w)`.

    Returns:
        The pixels, with shape :math:`(B, 3, F, H, W)`, :math:`F = k (f - 1) + 1` for a stride :math:`k` in time.
    """
    mean, std = (x.new_tensor(c).view(1, -1, 1, 1, 1) for c in (vae.config.latents_mean, vae.config.latents_std))
    z = (x * std + mean).to(next(vae.parameters()).dtype)
    return (vae.decode(z).sample.to(x.dtype) / 2 + 0.5).clamp(0, 1)
