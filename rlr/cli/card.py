"""The facts of a run for the model card of its export: settings of the config, and the results of the evaluation."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rlr.cli.config_parts import arguments_of, class_of
from rlr.evaluation.report import ALONE, COMPARED, Table, cells
from rlr.evaluation.statistics import Comparison, Estimate
from rlr.models.export import Card
from rlr.records.record import read_results

SHOWN = ("model", "sampler", "reward", "estimator", "penalty", "optimization", "seed")
"""The arguments of the module that a card states, in this order."""


def card_of(config: Mapping[str, Any], checkpoint: Path) -> Card:
    """Returns the card of a run.

    Args:
        config: The config of the training, as plain data.
        checkpoint: The checkpoint; the evaluation is in a folder ``evaluation`` in its folder or the one above.
    """
    arguments = arguments_of(config.get("model"))
    settings = {name: _words(arguments[name]) for name in SHOWN if arguments.get(name) is not None}
    steps = (config.get("trainer") or {}).get("max_steps", -1)
    settings |= {"updates": steps} if steps > 0 else {}
    return Card(class_of(arguments.get("reward")) or "", settings, results(checkpoint))


def results(checkpoint: Path) -> str:
    """Returns the tables of the newest evaluation of a run in Markdown, and when and on what it was made; empty without one."""
    roots = [folder / "evaluation" for folder in checkpoint.resolve().parents[:2]]
    files = [file for root in roots for file in root.glob("*/results.json")]
    if not files:
        return ""
    content = read_results(max(files, key=lambda file: file.stat().st_mtime))
    tables = [_table(name, found).markdown() for name, found in content.get("sets", {}).items()]
    made = ", ".join(str(content[key]) for key in ("device", "date") if content.get(key))
    note = f"After {content.get('update') or 0} updates{f', on {made}' if made else ''}. Intervals are bootstraps over prompts."
    return "\n\n".join([*tables, note])


def _table(name: str, found: Mapping[str, Any]) -> Table:
    values = {row: _value(numbers) for row, numbers in found.get("results", {}).items()}
    compared = all(isinstance(value, Comparison) for value in values.values())
    title = f"{name}: {len(found.get('prompts', []))} prompts"
    return Table(
        title, (title, *(COMPARED if compared else ALONE)), [(row, *cells(value)) for row, value in values.items()]
    )


def _value(numbers: Mapping[str, float | None]) -> Comparison | Estimate:
    kind = Comparison if "base" in numbers else Estimate
    # JSON has no NaN
    known = {field.name: numbers.get(field.name) for field in fields(kind)}
    return kind(**{name: float("nan") if number is None else number for name, number in known.items()})


def _words(value: Any) -> str:
    """Returns a part of a config as a call, such as ``DDIM(steps=50, eta=1.0)``; arguments that are null are left out."""
    if isinstance(value, Mapping):
        name = class_of(value)
        return f"{name or ''}({', '.join(_arguments(arguments_of(value) if name else value))})"
    return Path(value).name if isinstance(value, str) and Path(value).is_dir() else str(value)


def _arguments(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if value is not None:
            yield f"{name}={_words(value)}"
