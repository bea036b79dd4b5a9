"""``python train.py export``: the trained weights of a checkpoint, in the format of another program."""

from pathlib import Path
from typing import cast

from rlr.callbacks import EMA, SafeCheckpointIO
from rlr.io.atomic import occupied
from rlr.models import DiffusionModel
from rlr.models.export import FORMATS, Card, Exporter, exporter_of, hub
from rlr.models.export.hub import check_name
from rlr.modules.checkpoint import load_trained


def export(
    model: DiffusionModel,
    ckpt_path: str,
    folder: str | None = None,
    to: str | None = None,
    exporter: Exporter | None = None,
    use_average: bool = True,
    push: str | None = None,
    card: Card | None = None,
) -> list[Path]:
    """Write the trained weights of a checkpoint in the format of another program.

    The model is that of the config. Of the checkpoint only the trained weights are read: the reward, the estimator and the data
    of the config need not be those of the training, and are not built.

    Args:
        model: The base model.
        ckpt_path: The checkpoint.
        folder: The folder to write, which must be empty or not exist; by default ``export/FORMAT`` in the folder of the run.
        to: The format by its short name: diffusers, peft, kohya, comfyui, merged, safetensors-single or videocrafter.
        exporter: The format as an object, in the place of ``to``.
        use_average: Whether to write the average of the weights where an EMA has kept one, as ``test`` and ``predict`` use it.
        push: The repository on the hub to upload the folder to, such as me/my-lora; a new one is private.
        card: The facts of the training for the model card; by default none is written.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the folder holds files, no format is given or two, or the checkpoint is not of this model.
    """
    chosen = choose(to, exporter)
    target = place(folder, ckpt_path, chosen)
    check_empty(target)
    if push:
        check_name(push)
    read_weights(model, ckpt_path, use_average)
    files = chosen.write(model.eval(), target, card)
    if push:
        hub.push(target, push)
    return files


def read_weights(model: DiffusionModel, ckpt_path: str, use_average: bool = True) -> None:
    """Copies the trained weights of a checkpoint into a model; with ``use_average`` those that an EMA has averaged.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If the checkpoint is not of this model.
    """
    checkpoint = SafeCheckpointIO().load_checkpoint(ckpt_path)
    average = checkpoint.get("callbacks", {}).get(EMA.__qualname__, {}).get("average") if use_average else None
    load_trained(model, average or checkpoint["state_dict"], ckpt_path)


def place(folder: str | None, ckpt_path: str, exporter: Exporter) -> Path:
    """Returns the folder to write: the given one, or one for the format in the folder of the run."""
    if folder is not None:
        return Path(folder)
    short = {kind: name for name, kind in FORMATS.items()}
    checkpoint = Path(ckpt_path).parent
    run = checkpoint.parent if checkpoint.name == "checkpoints" else checkpoint
    return run / "export" / short.get(type(exporter), type(exporter).__name__)


def choose(to: str | None, exporter: Exporter | None) -> Exporter:
    """Returns the exporter that is asked for.

    Raises:
        ValueError: If none is, or two are.
    """
    if exporter is not None and to is not None:
        raise ValueError("export: expected one format, got to and exporter; leave out one of them")
    if exporter is None and to is None:
        raise ValueError(f"export: expected a format, got none; set to to one of {', '.join(FORMATS)}")
    return exporter_of(to) if to is not None else cast(Exporter, exporter)


def check_empty(folder: Path) -> None:
    """Raises if files in a folder could be overwritten."""
    if occupied(folder):
        raise ValueError(
            f"folder: expected an empty or a new folder, found files in {folder}; name another one or empty it"
        )
