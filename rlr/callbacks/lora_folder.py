"""The LoRA of a run as files for other programs, beside its checkpoint."""

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.callbacks.checkpointing import OnWrite
from rlr.io.atomic import new_folder
from rlr.models.adapters import LoRA
from rlr.models.base import DiffusionModel
from rlr.models.latent import LatentDiffusion
from rlr.models.wrapper import unwrap
from rlr.modules.alignment import Alignment

if TYPE_CHECKING:
    from rlr.models.export.base import Exporter

NAME = "lora"
"""The folder, in that of the run."""


class LoRAFolder(Callback, OnWrite):
    """Writes ``lora/`` with every checkpoint, for ``load_lora_weights`` of diffusers, or for peft where diffusers has no pipeline.

    The old folder stays until the new one is complete. A model that is not trained by a LoRA, and one whose LoRA has not changed,
    has no such folder. A failure warns and does not end the run. The weights are those of the training; ``export`` writes an
    average, if there is one, and compares images before it keeps the files.

    Args:
        folder: The folder of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_write(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = trained_lora(pl_module.chain.model) if isinstance(pl_module, Alignment) else None
        # the second factor of a LoRA starts at 0
        if model is None or not any(weight.any() for name, weight in model.trainable.items() if "lora_B" in name):
            return
        try:
            self._write(model)
        except (OSError, ValueError) as error:
            warnings.warn(f"{self.folder / NAME} was not written: {error}", stacklevel=2)

    def _write(self, model: LatentDiffusion) -> None:
        new, old = self.folder / f".{NAME}", self.folder / NAME
        shutil.rmtree(new, ignore_errors=True)
        with new_folder(new) as part:
            lora_exporter(model).save(model, part)
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)


def trained_lora(model: DiffusionModel) -> LatentDiffusion | None:
    """Returns the model inside wrappers if its trained weights are a LoRA that other programs read, else None."""
    base = unwrap(model)
    return base if isinstance(base, LatentDiffusion) and isinstance(base.adapter, LoRA) else None


def lora_exporter(model: LatentDiffusion) -> "Exporter":
    """Returns the exporter of the LoRA of a model."""
    # diffusers and peft take seconds to import, which a run that is only parsed need not pay
    from rlr.models.export.diffusers_lora import DiffusersLoRA
    from rlr.models.export.peft_adapter import PeftAdapter

    try:
        model.pipeline_class()
    except ValueError:
        return PeftAdapter()
    return DiffusersLoRA()
