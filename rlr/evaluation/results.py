"""What an evaluation found, and how it is told: a table, a file, numbers for logs."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property

from torch import Tensor

from rlr.evaluation.statistics import Comparison, Estimate, common, compare_pair, estimate
from rlr.evaluation.table import HEAD, Line, cells, markdown

COLUMNS = ("prompts", "measurement", "number", "samples", "base", "aligned", "difference", "low", "high")
"""Of the CSV file; ``number`` counts the prompts that have the measurement, and ``low`` and ``high`` bound the difference or,
without a base model, the score."""


@dataclass(frozen=True)
class Measurement:
    r"""One measurement on one set of prompts.

    A score that is not finite counts nowhere, and neither does that of the same sample of the other model.

    Args:
        label: What it is called, a version included.
        scores: The model's scores, with shape :math:`(N, S)`: prompts, samples.
        base: Those of the base model on the same noises; None where there is no other model to compare with.
        scales: Factors to the scales of published tables.
        higher_is_better: Whether a rise is a gain.
    """

    label: str
    scores: Tensor
    base: Tensor | None = None
    scales: Mapping[str, float] = field(default_factory=dict)
    higher_is_better: bool = True

    @cached_property
    def value(self) -> Comparison | Estimate:
        """The comparison with the base model, or what there is without one."""
        return estimate(self.scores) if self.base is None else compare_pair(self.base, self.scores)

    @property
    def number(self) -> int:
        """The number of prompts that count."""
        counts = self.scores.isfinite() if self.base is None else common(self.base, self.scores)
        return int(counts.any(1).sum())

    def rows(self) -> Iterator[tuple[str, Comparison | Estimate]]:
        """Yields name and value, raw first and then on each published scale."""
        yield self.label, self.value
        for name, factor in self.scales.items():
            yield f"{self.label} {name}", _times(factor, self.value)

    @property
    def published(self) -> tuple[str, float]:
        """The name and factor of the scale that tables are published in."""
        name, factor = next(iter(self.scales.items()), ("", 1.0))
        return f"{self.label} {name}".strip(), factor


@dataclass(frozen=True)
class Results:
    """An evaluation.

    Args:
        update: After how many updates.
        sets: The measurements on each set of prompts, by its name.
        prompts: The prompts of each set.
        facts: What one needs to repeat it, as plain data.
    """

    update: int
    sets: Mapping[str, Sequence[Measurement]]
    prompts: Mapping[str, Sequence[str]]
    facts: Mapping[str, object] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Returns the numbers for a logger, such as ``evaluation/hpdv2/HPSv2.1_x100``."""
        return dict(self._metrics())

    def _metrics(self) -> Iterator[tuple[str, float]]:
        for name, _, row, value in self._rows():
            key = f"evaluation/{name}/{row.replace(' ', '_')}"
            yield key, _present(value)
            if isinstance(value, Comparison):
                yield f"{key}_difference", value.difference

    def _rows(self) -> Iterator[tuple[str, Measurement, str, Comparison | Estimate]]:
        for name, measurements in self.sets.items():
            for measurement in measurements:
                for row, value in measurement.rows():
                    yield name, measurement, row, value

    def text(self) -> str:
        """Returns the tables in Markdown: one line a model first, then every measurement with its interval."""
        return "\n\n".join([markdown(self.summary()), *(markdown(self.table(name)) for name in self.sets)])

    def summary(self) -> list[Line]:
        """Returns the means of base and aligned model, a line each, on published scales; without an update there is the base."""
        measured = [m.published[0] for m in next(iter(self.sets.values()))]
        lines = [("prompts", "model", *measured)]
        for name, measurements in self.sets.items():
            values = [_times(m.published[1], m.value) for m in measurements]
            compared = [value for value in values if isinstance(value, Comparison)]
            if len(compared) == len(values):
                lines.append((name, "base", *(_written(value.base) for value in compared)))
            lines.append((name, "aligned" if self.update else "base", *(_written(_present(value)) for value in values)))
        return lines

    def table(self, name: str) -> list[Line]:
        """Returns all measurements on one set of prompts, a line each, raw and on published scales.

        One that not all of the prompts have says how many do.
        """
        title = f"{name}: {self._size(name)}"
        lines = [(f"{row}{_share(m)}", *_cells(value)) for m in self.sets[name] for row, value in m.rows()]
        head = HEAD[1:] if all(m.base is not None for m in self.sets[name]) else ("score", HEAD[-1])
        return [(title, *head), *lines]

    def _size(self, name: str) -> str:
        prompts, samples = self.sets[name][0].scores.shape
        return f"{prompts} prompts × {samples} {'sample' if samples == 1 else 'samples'}"

    def json(self) -> bytes:
        """Returns everything, the score of every sample included, as the content of a JSON file."""
        content = {**self.facts, "update": self.update, "sets": {name: self._plain(name) for name in self.sets}}
        return f"{json.dumps(content, indent=2, ensure_ascii=False)}\n".encode()

    def _plain(self, name: str) -> dict[str, object]:
        measurements = self.sets[name]
        return {
            "results": {row: asdict(value) for m in measurements for row, value in m.rows()},
            "numbers": {m.label: m.number for m in measurements},
            "scores": {m.label: m.scores.tolist() for m in measurements},
            "base_scores": {m.label: m.base.tolist() for m in measurements if m.base is not None},
            "prompts": list(self.prompts[name]),
        }

    def csv(self) -> bytes:
        """Returns the table, a row each measurement and scale, as the content of a CSV file."""
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for name, m, row, value in self._rows():
            found = {"aligned" if key == "mean" else key: number for key, number in asdict(value).items()}
            size = {"number": m.number, "samples": m.scores.shape[1]}
            writer.writerow({"prompts": name, "measurement": row, **size, **found})
        return buffer.getvalue().encode()


def _times(factor: float, value: Comparison | Estimate) -> Comparison | Estimate:
    return type(value)(*(factor * number for number in astuple(value)))


def _present(value: Comparison | Estimate) -> float:
    """Returns the mean of the model that is evaluated."""
    return value.aligned if isinstance(value, Comparison) else value.mean


def _share(measurement: Measurement) -> str:
    whole = len(measurement.scores)
    return "" if measurement.number == whole else f" ({measurement.number} of {whole})"


def _written(mean: float) -> str:
    return writer(mean)(mean, False)


def _cells(value: Comparison | Estimate) -> Line:
    show = writer(*(value.base, value.aligned) if isinstance(value, Comparison) else (value.mean,))
    if isinstance(value, Comparison):
        return cells(value, show)
    return show(value.mean, False), f"{show(value.low, False)} … {show(value.high, False)}"


def writer(*numbers: float) -> Callable[[float, bool], str]:
    """Returns a function that writes numbers with the decimals that give the largest of these four digits."""
    largest = max(abs(number) for number in numbers)
    decimals = min(5, max(1, 3 - math.floor(math.log10(largest)))) if 0 < largest < math.inf else 3
    return lambda number, signed: f"{number:{'+' if signed else ''}.{decimals}f}".replace("-", "−")
