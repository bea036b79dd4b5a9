"""The run itself: the command line and config of ``train.py fit``, with evaluations."""

import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from rlr.cli import main as command_line
from rlr.evaluation.provenance import provenance
from rlr.models.wrapper import unwrap
from rlr.modules.alignment import Alignment
from rlr.toy.demo.evaluation import DemoEvaluation
from rlr.toy.demo.report import Report


def arguments(options: Namespace, overrides: Sequence[str], folder: Path) -> list[str]:
    """Returns the arguments of ``train.py`` for this demo."""
    evaluation = {name: getattr(options, name) for name in ("prompts", "samples", "every", "seed")}
    return [
        "fit",
        f"--config={options.config}",
        f"--seed_everything={options.seed}",
        f"--trainer.max_steps={options.updates}",
        f"--trainer.default_root_dir={folder}",
        # the callback evaluates on held-out prompts and prints the progress
        "--trainer.limit_val_batches=0",
        "--trainer.enable_progress_bar=false",
        "--trainer.enable_model_summary=false",
        "--trainer.callbacks+=rlr.toy.demo.evaluation.DemoEvaluation",
        *(f"--trainer.callbacks.{name}={value}" for name, value in evaluation.items()),
        *overrides,
    ]


def align(options: Namespace, overrides: Sequence[str], folder: Path) -> tuple[Alignment, DemoEvaluation]:
    """Aligns the model of the config and returns the module and the callback that evaluated it."""
    cli = command_line(arguments(options, overrides, folder))
    assert isinstance(cli.model, Alignment)
    callbacks = cli.trainer.callbacks
    return cli.model, next(callback for callback in callbacks if isinstance(callback, DemoEvaluation))


def report(module: Alignment, evaluation: DemoEvaluation, command: str, config: str, started: float) -> Report:
    """Returns the report of a finished run.

    Raises:
        SystemExit: If the run was interrupted before the model was aligned.
    """
    if evaluation.world is None or evaluation.base is None or evaluation.aligned is None:
        raise SystemExit("the alignment was interrupted, so there is nothing to compare; run the demo again")
    method = type(module.estimator).__name__
    facts = {
        "command": command,
        "config": config,
        "seed": evaluation.seed,
        "updates": len(evaluation.training),
        "base": type(unwrap(module.chain.model)).__name__,
        "estimator": method,
        "reward": module.reward.label,
        "samples seen": module.progress.samples,
        "trained weights": sum(weight.numel() for weight in module.weights),
        "seconds": {"alignment": evaluation.times["alignment"], "total": time.monotonic() - started},
        **provenance(module.device),
    }
    return Report(
        evaluation.world, evaluation.set, evaluation.base, evaluation.aligned, evaluation.curves, method, facts
    )
