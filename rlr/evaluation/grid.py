"""Samples of the first prompts, those of the base model beside those of the present one on the same noise."""

from collections.abc import Sequence

from PIL import Image
from torch import Tensor

from rlr.evaluation.evaluator import Display, Drawing, Evaluated, View
from rlr.evaluation.images import Card, film, grid, to_image
from rlr.evaluation.metrics import Metric
from rlr.evaluation.samples import SampleSet
from rlr.io.video import Video


class SampleGrid(Display):
    r"""Draws the first sample of each of the first prompts of a set.

    The image goes to ``folder/000050.png``, named by the number of updates, and to every logger that shows images. Of videos, the
    image shows the middle frames, and ``000050.mp4`` beside it plays the samples side by side; the loggers get that one. ``last``
    has each sample of the latest drawing in its own file, and their prompts and scores in ``samples.json``.

    Args:
        number: The number of prompts.
        folder: Where to write, by default ``samples`` in the root folder of the trainer.
    """

    def __init__(self, number: int = 8, folder: str | None = None) -> None:
        if number < 1:
            raise ValueError(f"SampleGrid: expected number >= 1, found {number}")
        self.number, self.folder = number, folder

    def rows(self, samples: SampleSet) -> Sequence[int]:
        return [i * samples.samples for i in range(min(self.number, len(samples.prompts)))]

    def draw(self, view: View) -> Drawing:
        shown = {"base": view.base, "aligned": view.now} if view.base else {"": view.now}
        rows = self.rows(view.samples)
        frames = {(name, row): _frames(one.pixels[row]) for name, one in shown.items() for row in rows}
        images = [self._frame(view, shown, frames, at) for at in range(len(next(iter(frames.values()))))]
        video = None if view.fps is None else Video(film(images), view.fps)
        samples = {_file(row, name): one.pixels[row] for name, one in shown.items() for row in rows}
        return Drawing(images[len(images) // 2], video, samples, self._facts(view, shown))

    def _facts(self, view: View, shown: dict[str, Evaluated]) -> dict[str, object]:
        """Returns prompts, files and scores of the samples as plain data."""
        labels = [label for label, values in view.now.values.items() if values.shape == _shape(view.samples)]
        cards = [
            {
                "prompt": view.samples.prompts[row // view.samples.samples],
                "seed": view.samples.seed_of(row),
                "files": {name or "aligned": _file(row, name) for name in shown},
                "scores": {
                    name or "aligned": {label: _score(one, label, row, view.samples) for label in labels}
                    for name, one in shown.items()
                },
            }
            for row in self.rows(view.samples)
        ]
        return {"update": view.update, "fps": view.fps, "metrics": labels, "samples": cards}

    def _frame(
        self,
        view: View,
        shown: dict[str, Evaluated],
        frames: dict[tuple[str, int], list[Image.Image]],
        at: int,
    ) -> Image.Image:
        cards = [
            Card(
                view.samples.prompts[row // view.samples.samples],
                [frames[name, row][at] for name in shown],
                [caption(name, view.metric, one, row, view.samples) for name, one in shown.items()],
            )
            for row in self.rows(view.samples)
        ]
        after = f"before and after {view.update} updates" if view.base else f"after {view.update} updates"
        scored = f"; scores by {view.metric.label}" if view.metric else ""
        first = "The first prompt" if len(cards) == 1 else f"The first {len(cards)} prompts"
        return grid(cards, f"{first} {after}", f"the same noise every time{scored}")


def caption(name: str, metric: Metric | None, found: Evaluated, row: int, samples: SampleSet) -> str:
    """Returns the name of a model with the score of its sample, raw and on published scales."""
    score = None if metric is None else _score(found, metric.label, row, samples)
    if metric is None or score is None:
        return name
    scaled = (f"{scale} {factor * score:#.4g}" for scale, factor in metric.scales.items())
    return f"{name} {', '.join([f'{score:#.4g}', *scaled])}".strip()


def _score(found: Evaluated, label: str, row: int, samples: SampleSet) -> float | None:
    """Returns the value of a sample; None of a metric that has no value for each sample."""
    values = found.values.get(label)
    return (
        values[divmod(row, samples.samples)].item() if values is not None and values.shape == _shape(samples) else None
    )


def _shape(samples: SampleSet) -> tuple[int, int]:
    return len(samples.prompts), samples.samples


def _file(row: int, model: str) -> str:
    return f"{row:03d}-{model or 'aligned'}"


def _frames(pixels: Tensor) -> list[Image.Image]:
    return [to_image(frame) for frame in (pixels if pixels.ndim == 4 else pixels[None])]
