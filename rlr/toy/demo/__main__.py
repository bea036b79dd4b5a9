"""The demo's command line: ``python -m rlr.toy.demo --help``."""

import logging
import os
import sys
import tempfile
import time
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from rlr.io.threads import wait_briefly

CONFIGS = {
    "image": "configs/image/tiny_look_ahead.yaml",
    "flow": "configs/image/tiny_flow_look_ahead.yaml",
}
"""The config of each built-in model of images."""


def parser() -> ArgumentParser:
    """Returns the parser of the demo's own options; the others go to ``rlr.cli``."""
    parser = ArgumentParser(
        "python -m rlr.toy.demo",
        description="Align the built-in model and show what changed. Further options override the config, as in "
        "`python train.py fit`.",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder of the results (%(default)s)")
    aligned = parser.add_mutually_exclusive_group()
    aligned.add_argument(
        "--model",
        choices=CONFIGS,
        default="image",
        help="built-in model: of noise levels, or a rectified flow (%(default)s)",
    )
    aligned.add_argument("--config", help="what is aligned and how, in the place of a built-in model's config")
    parser.add_argument("--updates", type=int, default=90, help="number of updates (%(default)s)")
    parser.add_argument("--prompts", type=int, default=240, help="number of held-out prompts (%(default)s)")
    parser.add_argument("--samples", type=int, default=2, help="samples of each, two or more (%(default)s)")
    parser.add_argument("--every", type=int, default=15, help="updates between two looks at the curves (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed of prompts, noises and training (%(default)s)")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Runs the demo and returns the exit status."""
    if args is None:
        wait_briefly(os.environ)
    words = list(sys.argv[1:] if args is None else args)
    options, overrides = parser().parse_known_args(words)
    options.config = options.config or CONFIGS[options.model]
    try:
        _check(options)
        folder = prepare(options.out)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    run(options, overrides, folder, " ".join(["python -m rlr.toy.demo", *words]))
    return 0


def _check(options: Namespace) -> None:
    if not Path(options.config).is_file():
        raise ValueError(f"there is no file {options.config}; run the demo where the repository is, or set --config")
    for name, least in (("updates", 1), ("prompts", 3), ("samples", 2), ("every", 0)):
        value = getattr(options, name)
        if value < least:
            raise ValueError(f"--{name} {value} is too small for a comparison; set {least} or more")


def run(options: Namespace, overrides: Sequence[str], folder: Path, command: str) -> None:
    """Aligns, evaluates and writes the report."""
    started = time.monotonic()
    # importing torch, lightning and diffusers takes seconds: wrong options fail before
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from rlr.evaluation.report import say
    from rlr.toy.demo.alignment import align, report

    # of several processes, as with --trainer.devices 2, one speaks and writes
    first = rank_zero_only.rank == 0  # type: ignore[attr-defined]
    if first:
        say(f"the demo aligns the model of {options.config}; results go to {folder}")
    module, evaluation = align(options, overrides, folder)
    if not first:
        return
    result = report(module, evaluation, command, options.config, started)
    paths = result.save(folder)
    say(f"\n{result.table.text()}\n")
    say(f"{result.noise} Done in {time.monotonic() - started:.0f} s.\n")
    for path in paths:
        say(str(path))


def prepare(folder: Path) -> Path:
    """Makes the folder of the results and proves that it can be written.

    Raises:
        ValueError: If it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        _clear(folder)
    except OSError as error:
        message = f"the folder {folder} cannot be written ({error.strerror}); set another one with --out"
        raise ValueError(message) from None
    return folder


def _clear(folder: Path) -> None:
    """Deletes the checkpoints of an earlier demo, which a new run would refuse to overwrite; those of another run stay."""
    config = folder / "config.yaml"
    if config.is_file() and "rlr.toy.demo." in config.read_text(encoding="utf-8", errors="replace"):
        for file in folder.glob("*.ckpt"):
            file.unlink()


def _quiet() -> None:
    # what the libraries say about themselves would bury the table; these loggers keep their level when lightning is imported
    for package in ("lightning.pytorch", "lightning.fabric"):
        for module in ("rank_zero", "seed"):
            logging.getLogger(f"{package}.utilities.{module}").setLevel(logging.ERROR)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.filterwarnings("ignore")


if __name__ == "__main__":
    _quiet()
    sys.exit(main())
