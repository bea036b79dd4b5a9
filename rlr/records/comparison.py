"""The comparison of runs: a page, and its numbers as CSV files."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlr.evaluation.plots import Plots, value
from rlr.evaluation.report import MISSING, Block, Card, Gallery, Sample, Table, cells, page
from rlr.io.atomic import write_whole
from rlr.io.csv_file import to_csv
from rlr.io.terminal import duration
from rlr.records.gallery import sample, score
from rlr.records.gold import GOLD, gold_comparison
from rlr.records.groups import Group, differing, grouped
from rlr.records.paired import Difference, Key, differences, measured_keys, scores, standard_error
from rlr.records.record import Record, Sheet
from rlr.records.seed_bands import curves, hours, plots
from rlr.records.table import runs

PAGE = "index.html"
BANDS = "Lines are means over the runs of a group, which differ only in seeds; bands reach from the lowest to the highest of them."
EXPLOITED = (
    "Of a group, the first run. Where a measurement gets worse while the trained reward still rises, the trained reward is "
    "exploited. At equal reward the run with the better measurement is the better one."
)
PAIRED = (
    "The same prompts and noises on both sides. The interval is a percentile bootstrap over prompts (10,000 resamples) of the "
    "paired difference of the means over seeds; ± is the standard error of the difference over training seeds."
)
OTHER_BASE = (
    "Where ≠ stands, the base models of the two groups differ in their scores: another base model, sampler or guidance."
)


def write_comparison(folders: Sequence[Path], target: Path) -> list[Path]:
    """Writes ``index.html``, ``runs.csv``, ``curves.csv`` and ``differences.csv``, and returns their paths.

    Args:
        folders: The folders of the runs; the group of the first is the reference.
        target: The folder to write, such as ``comparison``.

    Raises:
        ValueError: If there is one run only, or a file of a run is damaged.
    """
    groups = grouped([Record(folder) for folder in folders])
    if len(folders) < 2:
        raise ValueError(f"compare: expected two runs or more, found {len(folders)} ({folders[0]}); name another one")
    found = list(differences(groups))
    files = {
        PAGE: comparison_page(groups, found).encode(),
        "runs.csv": runs(list(folders)).csv(),
        "curves.csv": to_csv(("group", "run", "curve", "update", "value"), _points(groups)),
        "differences.csv": to_csv(DIFFERENCES, map(_numbers, found)),
    }
    for name, content in files.items():
        write_whole(target / name, content)
    return [target / name for name in files]


def comparison_page(groups: Sequence[Group], found: Sequence[Difference]) -> str:
    """Returns the page.

    Args:
        groups: The groups, the reference first.
        found: The differences from the reference.
    """
    number = sum(len(group.records) for group in groups)
    lead = (
        f"{number} runs in {len(groups)} group{'s'[: len(groups) != 1]}: {', '.join(group.name for group in groups)}."
    )
    curves_, gold = plots(groups), gold_comparison({group.name: group.records[0] for group in groups})
    blocks: list[Block] = [
        _summary(groups),
        *([_paired(groups[0], found)] if found else []),
        *([Plots("Curves", curves_, BANDS)] if curves_ else []),
        *([Plots(GOLD, gold, EXPLOITED)] if gold else []),
        *_galleries(groups),
        *_settings(groups),
    ]
    return page("Comparison of runs", lead, blocks)


# ---------------------------------------------------------------- tables


def _summary(groups: Sequence[Group]) -> Table:
    """Returns one row for each group, with means over its runs and their standard errors."""
    keys = list(dict.fromkeys(key for group in groups for key in measured_keys(group)))
    head = (
        "group",
        "runs",
        "updates",
        "scored samples",
        "time",
        *(f"{label} · {name} ({stage})" for stage, name, label in keys),
    )
    rows = []
    for group in groups:
        known = measured_keys(group)
        results = [
            _mean([_score(record, key) for record in group.records]) if key in known else MISSING for key in keys
        ]
        rows.append((group.name, str(len(group.records)), *_costs(group), *results))
    return Table(
        "Results", head, rows, "Means over runs ± the standard error over training seeds, where there are several."
    )


def _score(record: Record, key: Key) -> float:
    found = scores(record, key)
    known = found[np.isfinite(found)]
    return float(known.mean()) if known.size else math.nan


def _mean(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    if math.isnan(mean):
        return MISSING
    if len(values) == 1:
        return value(mean)
    return f"{value(mean)} ± {standard_error(values):.2g}"


def _costs(group: Group) -> tuple[str, str, str]:
    updates = [record.updates for record in group.records]
    calls = [max(record.series("reward_calls").finite().values, default=math.nan) for record in group.records]
    times = [max(hours(record).values, default=math.nan) for record in group.records]
    shown = str(updates[0]) if len(set(updates)) == 1 else f"{min(updates)}–{max(updates)}"
    calls_, time = sum(calls) / len(calls), sum(times) / len(times)
    return (
        shown,
        MISSING if math.isnan(calls_) else f"{calls_:.0f}",
        MISSING if math.isnan(time) else duration(3600 * time),
    )


def _paired(reference: Group, found: Sequence[Difference]) -> Table:
    head = ("", reference.name, "group", "difference", "95 % interval", "± seeds", "prompts")
    rows = []
    for one in found:
        stage, name, label = one.key
        different = " ≠" if one.same_base is False else ""
        before, after, change, interval = cells(one.value)
        error = MISSING if math.isnan(one.seed_error) else f"{one.seed_error:.2g}"
        rows.append(
            (
                f"{one.group}: {label} · {name} ({stage}){different}",
                before,
                after,
                change,
                interval,
                error,
                str(one.prompts),
            )
        )
    note = f"{PAIRED} {OTHER_BASE}" if any(one.same_base is False for one in found) else PAIRED
    return Table(f"Differences from {reference.name}", head, rows, note)


def _settings(groups: Sequence[Group]) -> list[Table]:
    rows = [(name, *texts) for name, texts in differing(groups).items()]
    return [Table("Settings that differ", ("setting", *(group.name for group in groups)), rows)] if rows else []


# ---------------------------------------------------------------- images


def _galleries(groups: Sequence[Group]) -> Iterator[Gallery]:
    """Yields, for each set of prompts, the samples of the base model and of the first run of every group, in rows."""
    names = dict.fromkeys(sheet.set for group in groups for sheet in group.records[0].sheets)
    for name in names:
        found = {group.name: sheet for group in groups if (sheet := _sheet(group, name))}
        if len(found) > 1:
            yield _gallery(name, found)


def _sheet(group: Group, name: str) -> Sheet | None:
    return next((sheet for sheet in group.records[0].sheets if sheet.set == name), None)


def _gallery(name: str, sheets: dict[str, Sheet]) -> Gallery:
    reference, *others = sheets
    labels = [label for label in sheets[reference].labels if all(label in sheet.labels for sheet in sheets.values())][
        :1
    ]
    cards = {
        group: {(card.get("prompt", ""), card.get("seed")): card for card in sheet.cards}
        for group, sheet in sheets.items()
    }
    rows = []
    for key, card in cards[reference].items():
        shown = [*_one(sheets[reference], card, "base", "base", labels)]
        for group, sheet in sheets.items():
            shown += _one(sheet, cards[group].get(key), group, "aligned", labels)
        own = {group: _known(cards[group].get(key), labels) for group in sheets}
        rows.append(Card(str(key[0]), shown, [_change(own[reference], own[group]) for group in others]))
    keys = [f"change of {labels[0]}, {reference} → {group}" for group in others] if labels else []
    note = "The same prompts and noises in every column; of a group, the first run."
    return Gallery(f"Samples: {name}", [Card(c.prompt, c.samples, c.values if keys else ()) for c in rows], keys, note)


def _one(sheet: Sheet, card: Any, name: str, model: str, labels: Sequence[str]) -> Iterator[Sample]:
    if card is not None and (file := sheet.file(card, model)):
        yield sample(name, file, card, model, labels)


def _known(card: Any, labels: Sequence[str]) -> float | None:
    return score(card, "aligned", labels[0]) if card is not None and labels else None


def _change(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else after - before


# ---------------------------------------------------------------- files

DIFFERENCES = (
    *("group", "stage", "prompts", "measurement", "number", "reference", "value", "difference", "low", "high"),
    *("seed_error", "same_base"),
)
"""The columns of ``differences.csv``."""


def _numbers(one: Difference) -> tuple[Any, ...]:
    v = one.value
    return (
        one.group,
        *one.key,
        one.prompts,
        v.base,
        v.aligned,
        v.difference,
        v.low,
        v.high,
        one.seed_error,
        one.same_base,
    )


def _points(groups: Sequence[Group]) -> Iterator[tuple[Any, ...]]:
    """Yields every value of every curve, not smoothed."""
    for curve in curves(groups):
        for group in groups:
            for record in group.records:
                series = curve.get(record).finite()
                for at, number in zip(series.at, series.values, strict=True):
                    yield group.name, record.name, curve.title.removesuffix(", smoothed"), at, number
