"""Samples of runs under their prompts."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from rlr.evaluation.report import Card, Gallery, Media, Sample
from rlr.io.image_file import image_file
from rlr.records.record import Sheet

MOST = 384
"""The side that images are reduced to at most on a page; the file in the folder of the run has all pixels."""
FEW = 128
"""The side up to which each pixel is shown as a square."""
MODELS = ("base", "aligned")


def gallery(sheet: Sheet) -> Gallery:
    """Returns the samples of a run, the base model's beside its own, sortable by every score and its change."""
    cards = [
        Card(str(card.get("prompt", "")), _samples(sheet, card), _values(card, sheet.labels)) for card in sheet.cards
    ]
    compared = any("base" in card["files"] for card in sheet.cards)
    after = f"{sheet.update} update{'s'[: sheet.update != 1]}"
    shown = f"{sheet.set} ({sheet.stage})"
    title = f"Before and after {after}: {shown}" if compared else f"After {after}: {shown}"
    note = (
        "The first prompts in order; both samples of a prompt start from the same noise."
        if compared
        else "The first prompts in order."
    )
    return Gallery(title, cards, _keys(sheet.labels, compared), note)


def _keys(labels: Sequence[str], compared: bool) -> list[str]:
    return [key for label in labels for key in ([f"change of {label}", label] if compared else [label])]


def _values(card: Mapping[str, Any], labels: Sequence[str]) -> list[float | None]:
    compared = "base" in card["files"]
    found: list[float | None] = []
    for label in labels:
        before, after = (score(card, model, label) for model in MODELS)
        change = None if before is None or after is None else after - before
        found += [change, after] if compared else [after]
    return found


def score(card: Mapping[str, Any], model: str, label: str) -> float | None:
    """Returns the score of a sample; None where there is no finite one."""
    found = card.get("scores", {}).get(model, {}).get(label)
    return float(found) if isinstance(found, int | float) else None


def _samples(sheet: Sheet, card: Mapping[str, Any]) -> list[Sample]:
    files = [(model, file) for model in MODELS if (file := sheet.file(card, model))]
    return [sample(model, file, card, model, sheet.labels) for model, file in files]


def sample(name: str, file: Path, card: Mapping[str, Any], model: str, labels: Sequence[str]) -> Sample:
    """Returns a sample with its first score.

    Args:
        name: What its model is called.
        file: Its file.
        card: The prompt with the samples.
        model: Whose sample it is, ``base`` or ``aligned``.
        labels: The measurements, the first of which is written.
    """
    found = score(card, model, labels[0]) if labels else None
    return Sample(
        media(file, f"{name}: {card.get('prompt', '')}"),
        name,
        "" if found is None else f"{found:#.4g}".replace("-", "−"),
    )


def media(file: Path, text: str) -> Media:
    """Returns an image, reduced if it is large, or a video, so that a page holds it."""
    content = file.read_bytes()
    if file.suffix == ".mp4":
        return Media(content, text, "video/mp4")
    with image_file(file, content) as image:
        side = max(image.size)
        if side <= MOST:
            return Media(content, text, enlarged=side <= FEW)
        image.thumbnail((MOST, MOST), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, format="WEBP", quality=88)
    return Media(buffer.getvalue(), text, "image/webp")
