"""Latents as sequences of tokens, each with the 2 x 2 pixels of a square."""

from torch import Tensor

PATCH = 2
"""The latent's pixels of a side for one token."""


def pack(x: Tensor) -> Tensor:
    r"""Returns the tokens of latents :math:`(B, C, h, w)`, row by row, with shape :math:`(B, h w / 4, 4 C)`.

    The channels of a token are sorted by the latent's channel, then by row and column within the square.
    """
    batch, channels, height, width = x.shape
    squares = x.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return squares.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    r"""Returns the latents :math:`(B, C, h, w)` of tokens :math:`(B, h w / 4, 4 C)`."""
    squares = tokens.unflatten(1, (height // PATCH, width // PATCH)).unflatten(-1, (-1, PATCH, PATCH))
    return squares.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
