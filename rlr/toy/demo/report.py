"""The files of the demo: a page, an image, the numbers, and videos where there are some."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

from rlr.evaluation.evaluator import Evaluated
from rlr.evaluation.images import Card, png
from rlr.evaluation.plots import Plots
from rlr.evaluation.report import COMPARED, Block, Facts, Media, Sample, Samples, Table, Text, Tiles, cells, page
from rlr.evaluation.samples import SampleSet
from rlr.evaluation.statistics import Comparison, compare
from rlr.io.atomic import write_whole
from rlr.io.json_file import to_json
from rlr.toy.demo.curves import Curves
from rlr.toy.demo.world import World, show

FIRST = 12
"""The number of prompts that are shown at first; the samples of the others are folded, and stills."""
MODELS = ("base", "aligned")
BANDS = "The bands are the 95 % intervals of the change since update 0, over prompts on the same noise."


@dataclass(frozen=True)
class Report:
    """The report of a run.

    Args:
        world: The world of the prompts.
        samples: The samples.
        base: What was found before.
        aligned: What was found after.
        curves: What was measured between.
        method: The name of the estimator.
        facts: What is needed to repeat the run, as plain data for JSON.
    """

    world: World
    samples: SampleSet
    base: Evaluated
    aligned: Evaluated
    curves: Curves
    method: str
    facts: Mapping[str, object]

    @cached_property
    def comparisons(self) -> dict[str, Comparison]:
        """The measurements before and after."""
        return compare(self.base.values, self.aligned.values)

    @property
    def table(self) -> Table:
        """One row per measurement."""
        found, labels = self.comparisons, self.world.labels
        rows = [(label, *cells(found[name], partial(show, name))) for name, label in labels.items() if name in found]
        return Table("Measured", ("", *COMPARED), rows, self.world.words.reading)

    @property
    def noise(self) -> str:
        """What the means are over."""
        return (
            f"Means over {len(self.samples.prompts)} held-out prompts × {self.samples.samples} samples, the same noise before "
            "and after."
        )

    @property
    def numbers(self) -> dict[str, object]:
        """Everything measured, as plain data."""
        results = {name: asdict(comparison) for name, comparison in self.comparisons.items()}
        curves = {
            "updates": list(self.curves.updates),
            "held_out": {name: list(map(asdict, values)) for name, values in self.curves.held_out.items()},
            "training_reward": list(self.curves.training),
        }
        return {**self.facts, "prompts": list(self.samples.prompts), "results": results, "curves": curves}

    def save(self, folder: Path) -> list[Path]:
        """Writes the files and returns their paths, the page first; of those in folders the folders."""
        shown = self._pairs(range(min(FIRST, len(self.samples.prompts))), still=False)
        title = f"The first {len(shown)} held-out prompts before and after {len(self.curves.training)} updates"
        files = {
            "index.html": self._page(shown).encode(),
            "before_after.png": png(self.world.sheet(self._cards(len(shown)), title)),
            "results.json": to_json(self.numbers),
        }
        further = self.world.files([[sample.media for sample in pair] for _, pair in shown])
        for name, content in {**files, **further}.items():
            write_whole(folder / name, content)
        return [*(folder / name for name in files), *sorted({(folder / name).parent for name in further})]

    def _page(self, shown: Sequence[tuple[str, Sequence[Sample]]]) -> str:
        others = self._pairs(range(len(shown), len(self.samples.prompts)), still=True)
        words = self.world.words
        note = (
            f"The first {len(shown)} held-out prompts, in order. Both samples of a card start from the same noise. ✓ means that "
            f"the exact check, {words.check}, finds every claim of the prompt true; the number is the reward."
        )
        base, reward = (str(self.facts.get(name, "")) for name in ("base", "reward"))
        method = words.done(base, reward, len(self.curves.training), self.method)
        blocks: list[Block] = [
            Tiles([self._tile(name) for name in self.world.tiles], self.noise),
            Samples("Before and after", shown, note),
            Samples("", others, summary=f"The other {len(others)} held-out prompts", wide=self.world.wide),
            self.table,
            Plots("During alignment", self.curves.plots, BANDS),
            Text("What was done", (method, words.limits)),
            Facts("To repeat it", {name: _text(value) for name, value in self.facts.items()}),
        ]
        return page(words.title, self._lead(), blocks)

    def _tile(self, name: str) -> tuple[str, str, str, str]:
        value = self.comparisons[name]
        low, high, difference = (show(name, x, signed=True) for x in (value.low, value.high, value.difference))
        change = f"{difference}, 95 % interval {low} … {high}"
        return self.world.labels[name], show(name, value.base), show(name, value.aligned), change

    def _pairs(self, prompts: Sequence[int], still: bool) -> list[tuple[str, list[Sample]]]:
        return [(self.samples.prompts[i], [self._sample(i, name, still) for name in MODELS]) for i in prompts]

    def _sample(self, i: int, name: str, still: bool) -> Sample:
        found, right = self._found(name), self._right(i, name)
        pixels = found.pixels[i * self.samples.samples]
        text = f"{name}: {self.samples.prompts[i]} ({'right' if right else 'wrong'})"
        media = Media(png(self.world.still(pixels)), text, enlarged=True) if still else self.world.media(pixels, text)
        return Sample(media, name, f"{found.values['reward'][i, 0].item():.2f}", right)

    def _cards(self, count: int) -> list[Card]:
        return [
            Card(
                self.samples.prompts[i],
                [self.world.still(self._found(name).pixels[i * self.samples.samples]) for name in MODELS],
                MODELS,
                [self._right(i, name) for name in MODELS],
            )
            for i in range(count)
        ]

    def _found(self, name: str) -> Evaluated:
        return self.base if name == "base" else self.aligned

    def _right(self, i: int, name: str) -> bool:
        return bool(self._found(name).values["all"][i, 0] > 0)

    def _lead(self) -> str:
        _, base, aligned, change = self._tile("all")
        return (
            f"Share of samples that show exactly what their prompt says, on prompts that were never trained on: {base} before "
            f"and {aligned} after {len(self.curves.training)} updates of {self.method} on this machine ({change})."
        )


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) else str(value)
