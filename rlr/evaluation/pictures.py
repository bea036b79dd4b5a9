"""The picture of pictures: samples side by side under their prompts."""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

COLUMNS = 4
LEAST, MOST = 128, 256
"""The side that small samples are enlarged to at least, and that large ones are reduced to at most."""
INK, FAINT, PAPER, CARD = "#1f2328", "#656d76", "#ffffff", "#f6f8fa"
RIGHT, WRONG = "#1a7f37", "#cf222e"
MARGIN, PADDING, GAP, LINE = 32, 16, 12, 20
INDENT = 20
"""What a mark takes of its caption's first line."""


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


def picture(pixels: Tensor) -> Image.Image:
    """Returns the image of pixels in [0, 1], with shape (3, H, W)."""
    array = (pixels.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def png(image: Image.Image) -> bytes:
    """Returns the image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def scaled(image: Image.Image) -> Image.Image:
    """Returns the image in the size that it is shown in; each pixel of a small one is a square."""
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
    r"""Returns images of one size as frames of a clip, uint8 with shape :math:`(F, 3, H, W)`; H and W are made even."""
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
    for k, line in enumerate(wrap(card.prompt, width - 2 * PADDING, font)[:3]):
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
    """Breaks a text into lines that are no wider than ``width`` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    # matplotlib brings the fonts, so that the picture is the same on every machine
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", name), size)
