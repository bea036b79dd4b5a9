"""The page of a run, made of the files in its folder."""

import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlr.evaluation.plots import Plots, value
from rlr.evaluation.report import COMPARED, MISSING, Block, Facts, Table, Text, Tiles, cells, page
from rlr.evaluation.statistics import Comparison
from rlr.io.atomic import write_whole
from rlr.io.terminal import duration
from rlr.records.curves import cost_plots, further_plots, other_plots, reward_plot, term_plots
from rlr.records.gallery import gallery
from rlr.records.gold import GOLD, gold_plots
from rlr.records.record import CONFIG, METRICS, Record

PAGE = "index.html"
PATHS = {
    "last checkpoint": "last.ckpt",
    "checkpoint of the best validation": "best.ckpt",
    "LoRA": "lora",
    "samples": "samples",
    "evaluation": "evaluation",
    "numbers": METRICS,
    "config": CONFIG,
}
"""What a run may hold, by what it is called."""


def write_page(folder: Path) -> Path:
    """Writes ``index.html`` in the folder of a run, from the files that are there, and returns its path.

    Raises:
        FileNotFoundError: If the folder holds no run.
        ValueError: If a file is damaged.
    """
    if not Record.is_one(folder):
        raise FileNotFoundError(
            f"{folder}: expected the folder of a run, with {CONFIG}, {METRICS} or an evaluation, found none of them; name the "
            "folder of a run, such as runs/NAME"
        )
    file = folder / PAGE
    write_whole(file, run_page(Record(folder)).encode())
    return file


def run_page(record: Record) -> str:
    """Returns the page of a run."""
    blocks: list[Block] = [
        *_tiles(record),
        *(gallery(sheet) for sheet in record.sheets),
        *_plots("During training", [reward_plot(record), *other_plots(record)]),
        *_plots(GOLD, gold_plots(record)),
        *_tables(record),
        *_plots("The gradient", term_plots(record)),
        *_plots("Cost", cost_plots(record)),
        Facts("", _costs(record)),
        *_plots("", further_plots(record), "Everything else that was logged"),
        *_commands(record),
        Facts("Files", dict(_files(record))),
        Facts("To repeat it", _facts(record)),
        Text("", code=record.config_text, summary=f"The resolved config ({CONFIG})"),
    ]
    return page(record.name, _lead(record), [block for block in blocks if not _empty(block)])


def _empty(block: Block) -> bool:
    return (isinstance(block, Facts) and not block.facts) or (isinstance(block, Text) and not block.code)


def _plots(title: str, plots: Sequence[Any], summary: str = "") -> list[Plots]:
    found = [plot for plot in plots if plot is not None]
    return [Plots(title, found, summary=summary)] if found else []


# ---------------------------------------------------------------- numbers


def comparisons(record: Record) -> Iterator[tuple[str, str, str, Comparison]]:
    """Yields stage, set of prompts, measurement and comparison with the base model, those of a ``test`` first."""
    for stage, results in record.results.items():
        for name, found in results["sets"].items():
            for label, numbers in found.get("results", {}).items():
                if "difference" in numbers:
                    known = (_known(numbers.get(key)) for key in ("base", "aligned", "difference", "low", "high"))
                    yield stage, name, label, Comparison(*known)


def _known(number: float | None) -> float:
    return math.nan if number is None else float(number)


def change(found: Comparison) -> str:
    """Returns the difference with its interval, in words."""
    *_, difference, interval = cells(found)
    return difference if interval == MISSING else f"{difference}, 95 % interval {interval}"


def _tiles(record: Record) -> list[Tiles]:
    compared = list(comparisons(record))
    tiles = [
        (f"{label} · {name} ({stage})", cells(found)[0], cells(found)[1], change(found))
        for stage, name, label, found in compared
        # the raw scale alone
        if label in record.results[stage]["sets"][name].get("scores", {})
    ][:4]
    values = record.series("reward/mean").finite().values
    if len(values) > 1:
        window = max(1, len(values) // 10)
        first, last = (value(sum(part) / window) for part in (values[:window], values[-window:]))
        means = f"means of the first and the last {window} batches" if window > 1 else "the first and the last batch"
        tiles.append((f"{record.reward} · training prompts", first, last, means))
    return [Tiles(tiles, READING if compared else "")] if tiles else []


READING = (
    "Base model → aligned model, on the same prompts and noises. The interval is over prompts; it does not cover the seed of the "
    "training."
)


def _lead(record: Record) -> str:
    summary = _summary(record)
    found = next(comparisons(record), None)
    done = f"{record.updates} update{'s'[: record.updates != 1]}"
    parts = [f"Ended after {record.updates} of {record.planned} updates." if record.updates < record.planned else ""]
    if found is not None:
        stage, name, label, compared = found
        before, after, *_ = cells(compared)
        parts.append(f"{label} on {name} ({stage}): {before} before and {after} after {done} ({change(compared)}).")
    return " ".join(filter(None, parts)) or summary or f"{done}."


def _summary(record: Record) -> str:
    """Returns what the last ``fit`` did, in words."""
    return str(
        next((c["summary"] for c in reversed(record.commands) if c.get("summary") and c.get("command") == "fit"), "")
    )


def _tables(record: Record) -> Iterator[Table]:
    for stage, results in record.results.items():
        for name, found in results["sets"].items():
            rows = [
                (label, *cells(compared)) for s, n, label, compared in comparisons(record) if (s, n) == (stage, name)
            ] or [
                (label, value(_known(x.get("mean"))), MISSING, MISSING, _interval(x))
                for label, x in found.get("results", {}).items()
            ]
            number = len(found.get("prompts", []))
            title = f"{name}, {number} prompt{'s'[: number != 1]} ({stage}, after {results.get('update', 0)} updates)"
            yield Table(title, ("", *COMPARED), rows)


def _interval(numbers: Mapping[str, float | None]) -> str:
    low, high = (_known(numbers.get(key)) for key in ("low", "high"))
    return MISSING if math.isnan(low) else f"{value(low)} … {value(high)}"


def _costs(record: Record) -> dict[str, str]:
    """Returns seconds, samples and reward calls in all."""
    found: dict[str, str] = {}
    parts = [record.series(key) for key in record.keys if key.startswith("seconds/")]
    total = sum(x for series in parts for x in series.values if math.isfinite(x))
    if parts:
        found["time of all updates"] = duration(total)
    for key, name in (("reward_calls", "samples scored by the reward"), ("samples", "samples of training prompts")):
        series = record.series(key).finite()
        if len(series):
            found[name] = f"{max(series.values):.0f}"
    peaks = [x for key in record.keys if key.startswith("memory_mib/") for x in record.series(key).finite().values]
    if peaks:
        found["peak memory"] = f"{max(peaks):.0f} MiB"
    return found


# ---------------------------------------------------------------- what was done


def _commands(record: Record) -> list[Text]:
    lines = [str(command.get("line", "")) for command in record.commands]
    again = f"python train.py test {shlex.quote(str(record.folder))}"
    code = "\n".join(line for line in lines if line)
    return [Text("Commands", [] if code else [f"To score it on the test prompts: {again}"], code=code)]


def _files(record: Record) -> Iterator[tuple[str, str]]:
    for name, file in PATHS.items():
        if record.has(file):
            yield name, str(record.folder / file)


def _facts(record: Record) -> dict[str, str]:
    """Returns device, date, commit and versions of the last ``fit``, or of the last command."""
    fits = [command for command in record.commands if command.get("command") == "fit"] or record.commands
    last = fits[-1] if fits else next(iter(record.results.values()), {})
    shown = {"what": _summary(record)} | {name: last.get(name) for name in ("device", "date", "commit")}
    versions = last.get("versions")
    if isinstance(versions, Mapping):
        shown["versions"] = ", ".join(f"{name} {number}" for name, number in versions.items())
    return {name: str(text) for name, text in shown.items() if text}
