"""What an evaluation has found: tables, files, and numbers for logs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from functools import cached_property
from pathlib import Path

from torch import Tensor

from rlr.evaluation.report import ALONE, COMPARED, Table, cells, digits
from rlr.evaluation.statistics import Comparison, Estimate, common, compare_pair, estimate
from rlr.io.atomic import write_whole
from rlr.io.csv_file import to_csv
from rlr.io.json_file import to_json

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
    per_sample: bool = True

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
        facts: What is needed to repeat it, as plain data.
    """

    update: int
    sets: Mapping[str, Sequence[Measurement]]
    prompts: Mapping[str, Sequence[str]]
    facts: Mapping[str, object] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether there is any measurement."""
        return any(self.sets.values())

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
        """Returns the tables in Markdown: one row per model first, then every measurement with its interval."""
        return "\n\n".join(table.markdown() for table in (self.summary(), *map(self.table, self.sets)))

    def summary(self) -> Table:
        """Returns the means of base and aligned model, a row each, on published scales; without an update there is the base."""
        measured = [m.published[0] for m in next(iter(self.sets.values()))]
        rows = []
        for name, measurements in self.sets.items():
            values = [_times(m.published[1], m.value) for m in measurements]
            compared = [value for value in values if isinstance(value, Comparison)]
            if len(compared) == len(values):
                rows.append((name, "base", *(_written(value.base) for value in compared)))
            rows.append((name, "aligned" if self.update else "base", *(_written(_present(value)) for value in values)))
        return Table("means", ("prompts", "model", *measured), rows)

    def table(self, name: str) -> Table:
        """Returns all measurements on one set of prompts, a row each, raw and on published scales.

        A measurement that only some prompts have says how many do.
        """
        title = f"{name}: {self._size(name)}"
        rows = [(f"{row}{_share(m)}", *cells(value)) for m in self.sets[name] for row, value in m.rows()]
        compared = all(m.base is not None for m in self.sets[name])
        return Table(title, (title, *(COMPARED if compared else ALONE)), rows)

    def _size(self, name: str) -> str:
        prompts, samples = len(self.prompts[name]), max(m.scores.shape[1] for m in self.sets[name])
        return f"{prompts} prompt{'s'[: prompts != 1]} × {samples} sample{'s'[: samples != 1]}"

    def json(self) -> bytes:
        """Returns everything, the score of every sample included, as the content of a JSON file."""
        content = {**self.facts, "update": self.update, "sets": {name: self._plain(name) for name in self.sets}}
        return to_json(content)

    def write(self, folder: Path) -> None:
        """Writes ``results.json`` and ``results.csv``."""
        write_whole(folder / "results.json", self.json())
        write_whole(folder / "results.csv", self.csv())

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
        return to_csv(COLUMNS, self.lines())

    def lines(self) -> Iterator[dict[str, object]]:
        """Yields the rows of the CSV file."""
        for name, m, row, value in self._rows():
            found = {"aligned" if key == "mean" else key: number for key, number in asdict(value).items()}
            yield {"prompts": name, "measurement": row, "number": m.number, "samples": m.scores.shape[1], **found}


def _times(factor: float, value: Comparison | Estimate) -> Comparison | Estimate:
    return type(value)(*(factor * number for number in astuple(value)))


def _present(value: Comparison | Estimate) -> float:
    """Returns the mean of the model that is evaluated."""
    return value.aligned if isinstance(value, Comparison) else value.mean


def _share(measurement: Measurement) -> str:
    whole = len(measurement.scores)
    return "" if measurement.number == whole else f" ({measurement.number} of {whole})"


def _written(mean: float) -> str:
    return digits(mean)(mean, False)
