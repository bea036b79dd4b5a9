"""The files of the demo: two pictures, a page and the numbers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rlr.demo.curves import DARK, LIGHT, Curves, draw
from rlr.demo.evaluate import Evaluation
from rlr.demo.grid import cards, pairs
from rlr.demo.labels import show
from rlr.demo.page import FIRST, Story, page
from rlr.evaluation.pictures import grid, png
from rlr.evaluation.statistics import Comparison, compare
from rlr.files import write_whole


@dataclass(frozen=True)
class Report:
    """All there is to say about one run.

    Args:
        base: The evaluation before.
        aligned: The evaluation after.
        curves: What was measured between.
        method: The estimator, as one says it.
        facts: What one needs to repeat the run, as plain data for JSON.
    """

    base: Evaluation
    aligned: Evaluation
    curves: Curves
    method: str
    facts: Mapping[str, object]

    @property
    def comparisons(self) -> dict[str, Comparison]:
        """The measurements before and after."""
        return compare(self.base.scores, self.aligned.scores)

    def save(self, folder: Path) -> list[Path]:
        """Writes the files and returns their paths, the page first."""
        shown = pairs(self.base, self.aligned)
        light, dark = draw(self.curves, LIGHT), draw(self.curves, DARK)
        facts = {name: _text(value) for name, value in self.facts.items()}
        html = page(self.story, self.comparisons, shown, (light, dark), facts)
        updates = len(self.curves.training)
        title = f"The first {min(FIRST, len(shown))} held-out prompts before and after {updates} updates"
        sheet = grid(cards(shown[:FIRST]), title, "not chosen; same noise on both sides; ✓ by the exact check")
        files = {
            "index.html": html.encode(),
            "before_after.png": png(sheet),
            "curves.png": light,
            "results.json": f"{json.dumps(self.numbers, indent=2, ensure_ascii=False)}\n".encode(),
        }
        for name, content in files.items():
            write_whole(folder / name, content)
        return [folder / name for name in files]

    @property
    def numbers(self) -> dict[str, object]:
        """Everything measured, as plain data."""
        results = {name: asdict(comparison) for name, comparison in self.comparisons.items()}
        curves = {
            "updates": list(self.curves.updates),
            "held_out": {name: list(values) for name, values in self.curves.held_out.items()},
            "training_reward": list(self.curves.training),
        }
        return {**self.facts, "prompts": list(self.base.prompts), "results": results, "curves": curves}

    @property
    def story(self) -> Story:
        """The sentences of the page."""
        prompts, samples = self.base.pixels.shape[:2]
        return Story(
            title="A diffusion model before and after alignment",
            lead=self._lead(),
            noise=f"Means over {prompts} held-out prompts × {samples} samples, the same noise before and after.",
            reading=READING,
            method=METHOD.format(updates=len(self.curves.training), method=self.method),
            limits=LIMITS,
        )

    def _lead(self) -> str:
        everything = self.comparisons["all"]
        return (
            f"{len(self.curves.training)} updates of {self.method} on this machine moved the share of samples that "
            f"show exactly what their prompt says from {show('all', everything.base)} to "
            f"{show('all', everything.aligned)}, on prompts that were never trained on."
        )


READING = (
    "Differences of shares are in percentage points. The interval is a percentile bootstrap over prompts (10,000 "
    "resamples) of the paired difference; it covers the choice of prompts and noises, not that of the training seed. "
    "Diversity is the mean distance between two samples of one prompt in average colours on grids of 1 to 8 cells; "
    "a model that collapses to one picture a prompt has 0."
)

METHOD = (
    "The base is a small latent diffusion model in Stable Diffusion's own format that ships with the library and was "
    "trained from scratch on captioned scenes. {updates} updates of {method} changed its LoRA weights so that the "
    "reward, a small CLIP in PickScore's format, goes up on training prompts. The exact check takes no part in "
    "training: it is a program that finds the things in a picture and compares them with the prompt."
)

LIMITS = (
    "This shows that the gradient does what it says, on a toy world of coloured shapes at 32 × 32 pixels. It says "
    "nothing about natural images, and one run has one training seed."
)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)
