"""The files of the demo: two pictures, a page, the numbers, and clips where there are some."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from rlr.evaluation.pictures import png
from rlr.evaluation.statistics import Comparison, compare
from rlr.io.atomic import write_whole
from rlr.toy.demo.curves import DARK, LIGHT, Curves, draw
from rlr.toy.demo.evaluate import Evaluation
from rlr.toy.demo.grid import FIRST, cards, pairs
from rlr.toy.demo.labels import show
from rlr.toy.demo.page import Story, page
from rlr.toy.demo.world import World


@dataclass(frozen=True)
class Report:
    """All there is to say about one run.

    Args:
        world: What the prompts are of.
        base: The evaluation before.
        aligned: The evaluation after.
        curves: What was measured between.
        method: The estimator, as one says it.
        facts: What one needs to repeat the run, as plain data for JSON.
    """

    world: World
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
        """Writes the files and returns their paths, the page first; of those in folders the folders."""
        shown = pairs(self.world, self.base, self.aligned)
        light, dark = draw(self.curves, LIGHT), draw(self.curves, DARK)
        facts = {name: _text(value) for name, value in self.facts.items()}
        html = page(self.world, self.story, self.comparisons, shown, (light, dark), facts)
        updates = len(self.curves.training)
        title = f"The first {min(FIRST, len(shown))} held-out prompts before and after {updates} updates"
        sheet = self.world.sheet(cards(shown[:FIRST]), title)
        files = {
            "index.html": html.encode(),
            "before_after.png": png(sheet),
            "curves.png": light,
            "results.json": f"{json.dumps(self.numbers, indent=2, ensure_ascii=False)}\n".encode(),
        }
        further = self.world.files([pair.media for pair in shown[:FIRST]])
        for name, content in {**files, **further}.items():
            write_whole(folder / name, content)
        return [*(folder / name for name in files), *sorted({(folder / name).parent for name in further})]

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
        words = self.world.words
        return Story(
            title=words.title,
            lead=self._lead(),
            check=words.check,
            noise=f"Means over {prompts} held-out prompts × {samples} samples, the same noise before and after.",
            reading=words.reading,
            method=words.method.format(updates=len(self.curves.training), method=self.method),
            limits=words.limits,
        )

    def _lead(self) -> str:
        everything = self.comparisons["all"]
        return (
            f"{len(self.curves.training)} updates of {self.method} on this machine moved the share of samples that "
            f"show exactly what their prompt says from {show('all', everything.base)} to "
            f"{show('all', everything.aligned)}, on prompts that were never trained on."
        )


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)
