"""The model of a finished run."""

from pathlib import Path

import torch

from rlr.api.aligned import Aligned
from rlr.chain import Chain
from rlr.cli.card import card_of
from rlr.cli.export import read_weights
from rlr.cli.parser import build
from rlr.cli.run_folder import LAST, Run
from rlr.cli.source_index import named_anywhere
from rlr.cli.static_check import import_classes
from rlr.io.config_files import read_config
from rlr.io.csv_file import read_csv
from rlr.io.shape import check_shape
from rlr.models import DiffusionModel
from rlr.samplers import Sampler

METRICS = "metrics.csv"
"""The file of a run with the numbers of its updates."""


def load(folder: str | Path, checkpoint: str = LAST, device: str | torch.device | None = None) -> Aligned:
    """Returns the aligned model of a run, with its sampler and the numbers of its updates.

    The weights are those of the average where an EMA has kept one. Reward, estimator and data are not built.

    Args:
        folder: The folder of the run, which ``fit`` has written.
        checkpoint: The name of the checkpoint in it, ``last.ckpt`` or ``best.ckpt``.
        device: The device; by default the accelerator, if there is one.

    Raises:
        ValueError: If the folder holds no run, or no such checkpoint.
    """
    run = Run(Path(folder))
    config = read_config(run.config)
    check_shape(config, {"model": {"init_args": (None, {})}}, str(run.config), "name the folder of a run")
    path = run.checkpoint(checkpoint)
    # classes get the short names that a config may hold
    import_classes(named_anywhere([]))
    arguments = config.get("model", {}).get("init_args") or {}
    model = build(arguments.get("model"), DiffusionModel, "model.model")
    sampler = build(arguments.get("sampler"), Sampler, "model.sampler")
    read_weights(model, str(path))
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    chain = Chain(model.eval(), sampler).to(device or found or "cpu")
    return Aligned(chain, card_of(config, path), _history(run.folder / METRICS), folder=run.folder)


def _history(file: Path) -> list[dict[str, float]]:
    """Returns the rows of a file of metrics without the empty cells."""
    try:
        return [{name: float(value) for name, value in row.items() if value} for row in read_csv(file)]
    except ValueError as error:
        raise ValueError(
            f"{file}: expected numbers, found something else ({error}); restore the file, or remove it"
        ) from error
