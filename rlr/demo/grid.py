"""The picture of pictures: samples before and after, side by side under their prompts."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rlr.demo.evaluate import Evaluation

ZOOM = 4
COLUMNS = 4
INK, FAINT, PAPER, CARD = "#1f2328", "#656d76", "#ffffff", "#f6f8fa"
RIGHT, WRONG = "#1a7f37", "#cf222e"
MARGIN, PADDING, GAP, LINE = 32, 16, 12, 20


@dataclass(frozen=True)
class Pair:
    r"""One prompt before and after on the same noise.

    Args:
        prompt: The prompt.
        images: The two samples, base first.
        rewards: Their rewards.
        correct: Whether the exact check found nothing wrong.
    """

    prompt: str
    images: tuple[Image.Image, Image.Image]
    rewards: tuple[float, float]
    correct: tuple[bool, bool]


def pairs(base: Evaluation, aligned: Evaluation, sample: int = 0) -> list[Pair]:
    """Returns the given sample of every prompt, before and after."""
    both = (base, aligned)
    return [
        Pair(
            prompt,
            (picture(base.pixels[i, sample]), picture(aligned.pixels[i, sample])),
            (base.scores["reward"][i, sample].item(), aligned.scores["reward"][i, sample].item()),
            tuple(bool(e.scores["all"][i, sample] > 0) for e in both),  # type: ignore[arg-type]
        )
        for i, prompt in enumerate(base.prompts)
    ]


def picture(pixels: Tensor) -> Image.Image:
    """Returns the image of pixels in [0, 1], with shape (3, H, W)."""
    array = (pixels.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(array))


def png(image: Image.Image) -> bytes:
    """Returns the image as the content of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def grid(shown: Sequence[Pair], title: str, subtitle: str) -> Image.Image:
    """Draws the pairs as cards, four a row, each pixel of a sample as a square of 4 × 4."""
    side = shown[0].images[0].width * ZOOM
    width, height = 2 * side + GAP + 2 * PADDING, side + 3 * LINE + 10 + 2 * PADDING + LINE
    count = -(-len(shown) // COLUMNS)
    top = MARGIN + 76
    size = (2 * MARGIN + COLUMNS * (width + GAP) - GAP, top + count * (height + GAP) - GAP + MARGIN)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((MARGIN, MARGIN - 6), title, INK, _font(28, bold=True))
    draw.text((MARGIN, MARGIN + 34), subtitle, FAINT, _font(16))
    for k, pair in enumerate(shown):
        row, column = divmod(k, COLUMNS)
        _card(canvas, pair, MARGIN + column * (width + GAP), top + row * (height + GAP), width, height)
    return canvas


def _card(canvas: Image.Image, pair: Pair, x: int, y: int, width: int, height: int) -> None:
    draw = ImageDraw.Draw(canvas)
    draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), 10, CARD)
    font = _font(14)
    for k, line in enumerate(wrap(pair.prompt, width - 2 * PADDING, font)[:3]):
        draw.text((x + PADDING, y + PADDING + k * LINE), line, INK, font)
    top = y + PADDING + 3 * LINE + 4
    for k, name in enumerate(("base", "aligned")):
        image = pair.images[k].resize([side * ZOOM for side in pair.images[k].size], Image.Resampling.NEAREST)
        left = x + PADDING + k * (image.width + GAP)
        canvas.paste(image, (left, top))
        _verdict(draw, name, pair.correct[k], left, top + image.height + 6)


def _verdict(draw: ImageDraw.ImageDraw, name: str, correct: bool, x: int, y: int) -> None:
    draw.text((x, y), "✓" if correct else "✗", RIGHT if correct else WRONG, _font(16, bold=True))
    draw.text((x + 20, y + 1), name, FAINT, _font(14))


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
