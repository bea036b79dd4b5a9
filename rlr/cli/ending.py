"""The last lines of a command: what rose by how much, where the results are, and what to type next."""

from collections.abc import Iterator, Mapping
from typing import Any

from rlr.callbacks.prediction import PredictionWriter
from rlr.cli.run_folder import BEST, LAST, Run
from rlr.modules.alignment import Alignment

RESULTS = {"page": "index.html", "LoRA": "lora", "images": "samples", "evaluation": "evaluation"}
"""What a run may hold, by what it is called, in the order in which it is stated."""
NEXT = {"fit": "test", "validate": "test", "test": "predict", "predict": "export"}
"""The command that usually follows a command."""


def ending(command: str, trainer: Any, module: Any, run: Run, first: float | None) -> str:
    """Returns up to four lines.

    Args:
        command: The command that has ended.
        trainer: Its trainer.
        module: Its module.
        run: The folder of its run.
        first: The running mean of the training reward after the first batch; None where nothing was trained.
    """
    lines = [*_change(command, trainer, module, first), _place(command, trainer, run)]
    if (run.folder / LAST).is_file() and command in NEXT:
        lines.append(f"next: python train.py {NEXT[command]} {run.folder}")
    return "\n".join(lines)


def _change(command: str, trainer: Any, module: Any, first: float | None) -> Iterator[str]:
    if not isinstance(module, Alignment):
        return
    label = module.reward.label
    if command == "fit" and first is not None and module.progress.running is not None:
        now = module.progress.running
        updates = f"{trainer.global_step} update{'s' if trainer.global_step != 1 else ''}"
        yield f"{label} {first:.4g} → {now:.4g} ({now - first:+.2g}) on the training prompts, in {updates}"
    stage = {"validate": "val", "test": "test"}.get(command, "val")
    value = trainer.callback_metrics.get(f"{stage}/reward")
    if command == "test" and value is None:
        yield from _compared(label, trainer.callback_metrics)
    elif command != "predict" and value is not None:
        yield f"{label} {float(value):.4g} on the prompts of {'the validation' if stage == 'val' else 'the test'}"


def _compared(label: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    """The reward that an evaluation has measured, with that of the base model where it is known."""
    names = [
        name for name in metrics if name.startswith("evaluation/") and name.endswith(f"/{label.replace(' ', '_')}")
    ]
    for name in names[:1]:
        value, change = float(metrics[name]), metrics.get(f"{name}_difference")
        base = "" if change is None else f"{value - float(change):.4g} → "
        gain = "" if change is None else f" ({float(change):+.2g})"
        yield f"{label} {base}{value:.4g}{gain} on {name.split('/')[1]}"


def _place(command: str, trainer: Any, run: Run) -> str:
    """Returns where the results are, those that there are."""
    found = [f"{name} {run.folder / file}" for name, file in RESULTS.items() if (run.folder / file).exists()]
    if command == "predict":
        found = [f"samples {c.place(trainer)}" for c in trainer.callbacks if isinstance(c, PredictionWriter)]
    if command == "fit":
        found += [f"checkpoint {run.folder / file}" for file in (LAST, BEST) if (run.folder / file).is_file()][:1]
    return " · ".join(found) if found else f"run {run.folder}"
