"""``python train.py export``: the trained weights of a checkpoint, in the format of another program."""

from pathlib import Path

from rlr.callbacks import EMA, SafeCheckpointIO
from rlr.models import DiffusionModel
from rlr.models.export import Exporter
from rlr.modules.checkpoint import load_trained


def export(
    model: DiffusionModel, exporter: Exporter, folder: str, ckpt_path: str, use_average: bool = True
) -> list[Path]:
    """Write the trained weights of a checkpoint in the format of another program.

    The model is that of the config. Of the checkpoint only the trained weights are read: the reward, the estimator and the data
    of the config need not be those of the training, and are not built.

    Args:
        model: The base model.
        exporter: The format.
        folder: The folder to write, which must be empty or not exist.
        ckpt_path: The checkpoint.
        use_average: Whether to write the average of the weights where an EMA has kept one, as ``test`` and ``predict`` use it.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the folder holds files, or the checkpoint is not of this model.
    """
    target = Path(folder)
    check_empty(target)
    checkpoint = SafeCheckpointIO().load_checkpoint(ckpt_path)
    average = checkpoint.get("callbacks", {}).get(EMA.__qualname__, {}).get("average") if use_average else None
    load_trained(model, average or checkpoint["state_dict"], ckpt_path)
    return exporter.write(model.eval(), target)


def check_empty(folder: Path) -> None:
    """Raises if files in a folder could be overwritten."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(
            f"folder: expected an empty or a new folder, found files in {folder}; name another one or empty it"
        )
