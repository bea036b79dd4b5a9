"""Alignment of text-to-image models."""

from rlr.modules.alignment import Alignment


class ImageAlignment(Alignment):
    r"""Aligns a text-to-image model: latents decode to pixels with shape :math:`(B, 3, H, W)`."""
