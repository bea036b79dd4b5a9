"""Images of images: samples side by side under their prompts."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLUMNS = 4
LEAST, MOST = 128, 256
"""The side that small samples are enlarged to at least, and that large ones are reduced to at most."""
INK, FAINT, PAPER, CARD = "#1f2328", "#656d76", "#ffffff", "#f6f8fa"
RIGHT, WRONG = "#1a7f37", "#cf222e"
MARGIN, PADDING, GAP, LINE = 32, 16, 12, 20
INDENT = 20
"""The pixels that a mark takes of the first line of its caption."""
PROMPT_LINES = 3
"""The most lines of a prompt."""
UNKNOWN = "�"
"""Drawn for a character that the font does not have."""
BROKEN = (255, 0, 255)
"""The color of pixels that are NaN or infinite."""


@dataclass(frozen=True)
class Card:
    r"""Samples of one prompt, to be drawn side by side.

    Args:
        prompt: The prompt.
        images: The samples.
        captions: What is written below each.
        marks: Whether each gets a ✓ or a ✗; None is no mark.
    """

    prompt: str
    images: Sequence[Image.Image]
    captions: Sequence[str]
    marks: Sequence[bool] | None = None


def to_image(pixels: Tensor) -> Image.Image:
    """Returns the image of pixels in [0, 1], with shape (3, H, W); those that are not finite are magenta."""
    pixels = pixels.detach().float()
    finite = pixels.isfinite().all(0)
    colors = (pixels.nan_to_num().clamp(0, 1) * 255).round().byte()
    colors = colors.where(finite, torch.tensor(BROKEN, dtype=torch.uint8, device=colors.device)[:, None, None])
    return Image.fromarray(np.ascontiguousarray(colors.permute(1, 2, 0).cpu().numpy()))


def png(image: Image.Image) -> bytes:
    """Returns the image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def scaled(image: Image.Image) -> Image.Image:
    """Returns the image in the size of grids; each pixel of a small one is a square."""
    side = max(image.size)
    if side > MOST:
        return image.resize([round(length * MOST / side) for length in image.size], Image.Resampling.LANCZOS)
    zoom = -(-LEAST // side)
    return image.resize([length * zoom for length in image.size], Image.Resampling.NEAREST)


def sheet(images: Sequence[Image.Image], count: int = 6) -> Image.Image:
    """Draws at most ``count`` of the images, evenly spaced, from left to right and line by line, about as wide as high."""
    count = min(count, len(images))
    chosen = [images[(2 * k + 1) * len(images) // (2 * count)] for k in range(count)]
    width, height = chosen[0].size
    columns = min(count, max(1, round(math.sqrt(count * height / width))))
    canvas = Image.new("RGB", (columns * width, -(-count // columns) * height), PAPER)
    for k, image in enumerate(chosen):
        row, column = divmod(k, columns)
        canvas.paste(image, (column * width, row * height))
    return canvas


def film(images: Sequence[Image.Image]) -> Tensor:
    r"""Returns images of one size as frames of a video, uint8 with shape :math:`(F, 3, H, W)`; H and W are made even."""
    width, height = (length + length % 2 for length in images[0].size)
    canvases = [Image.new("RGB", (width, height), PAPER) for _ in images]
    for canvas, image in zip(canvases, images, strict=True):
        canvas.paste(image, (0, 0))
    return torch.from_numpy(np.stack([np.asarray(canvas) for canvas in canvases])).permute(0, 3, 1, 2)


def grid(
    cards: Sequence[Card],
    title: str,
    subtitle: str,
    columns: int = COLUMNS,
    size: Callable[[Image.Image], Image.Image] = scaled,
) -> Image.Image:
    """Draws the cards, ``columns`` a row, with their images as large as ``size`` makes them."""
    shown = [size(image) for image in cards[0].images]
    width = sum(image.width + GAP for image in shown) - GAP + 2 * PADDING
    below = max(len(lines) for card in cards for lines in _captions(card, [image.width for image in shown]))
    height = max(image.height for image in shown) + 3 * LINE + 10 + 2 * PADDING + below * LINE
    count = -(-len(cards) // columns)
    top = MARGIN + 76
    extent = (2 * MARGIN + columns * (width + GAP) - GAP, top + count * (height + GAP) - GAP + MARGIN)
    canvas = Image.new("RGB", extent, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 6), title, INK, _font(28, bold=True))
    draw.text((MARGIN, MARGIN + 34), subtitle, FAINT, _font(16))
    for k, card in enumerate(cards):
        row, column = divmod(k, columns)
        sized = replace(card, images=[size(image) for image in card.images])
        _card(canvas, sized, MARGIN + column * (width + GAP), top + row * (height + GAP), width, height)
    return canvas


def _card(canvas: Image.Image, card: Card, x: int, y: int, width: int, height: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), 10, CARD)
    font = _font(14)
    for k, line in enumerate(shortened(wrap(card.prompt, width - 2 * PADDING, font), PROMPT_LINES)):
        draw.text((x + PADDING, y + PADDING + k * LINE), line, INK, font)
    left, top = x + PADDING, y + PADDING + 3 * LINE + 4
    captions = _captions(card, [image.width for image in card.images])
    for k, (image, lines) in enumerate(zip(card.images, captions, strict=True)):
        canvas.paste(image, (left, top))
        mark = None if card.marks is None else card.marks[k]
        _caption(draw, lines, mark, left, top + image.height + 6)
        left += image.width + GAP


def _captions(card: Card, widths: Sequence[int]) -> list[list[str]]:
    """Returns the lines below each image, as wide as it is and no wider: the next one's begin there."""
    indent = 0 if card.marks is None else INDENT
    return [wrap(text, width - indent, _font(14)) for text, width in zip(card.captions, widths, strict=True)]


def _caption(draw: ImageDraw.ImageDraw, lines: Sequence[str], mark: bool | None, x: int, y: int) -> None:
    if mark is not None:
        draw.text((x, y), "✓" if mark else "✗", RIGHT if mark else WRONG, _font(16, bold=True))
    for k, line in enumerate(lines):
        draw.text((x if mark is None else x + INDENT, y + 1 + k * LINE), line, FAINT, _font(14))


def wrap(text: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    """Breaks a text into lines that are no wider than ``width`` pixels, at blanks, or within a word that is wider itself.

    A character that the font does not have becomes �.
    """
    lines = [""]
    for word in drawable(text).split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines += _pieces(word, width, font)
    return lines if lines[0] or len(lines) == 1 else lines[1:]


def _pieces(word: str, width: float, font: ImageFont.FreeTypeFont) -> list[str]:
    pieces = [""]
    for character in word:
        if pieces[-1] and font.getlength(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def shortened(lines: Sequence[str], most: int) -> list[str]:
    """Returns the first lines, with … where others are left out."""
    return list(lines) if len(lines) <= most else [*lines[: most - 1], f"{lines[most - 1][:-1]}…"]


def drawable(text: str) -> str:
    """Returns a text in which every character has a glyph."""
    return "".join(sign if sign.isspace() or _glyphs().get_char_index(ord(sign)) else UNKNOWN for sign in text)


@cache
def _glyphs() -> FT2Font:
    return FT2Font(str(_file(bold=False)))


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_file(bold), size)


def _file(bold: bool) -> Path:
    # matplotlib brings the fonts, so that an image is the same on every machine
    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")
