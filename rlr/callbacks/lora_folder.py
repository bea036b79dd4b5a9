"""The LoRA of a run as files for other programs, beside its checkpoint."""

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.io.atomic import new_folder
from rlr.models.adapters import LoRA
from rlr.models.latent import LatentDiffusion
from rlr.models.wrapper import unwrap
from rlr.modules.alignment import Alignment

if TYPE_CHECKING:
    from rlr.models.export.base import Exporter

NAME = "lora"
"""The folder, in that of the run."""


class LoRAFolder(Callback):
    """Writes ``lora/`` with every checkpoint, for ``load_lora_weights`` of diffusers, or for peft where diffusers has no pipeline.

    The old folder stays until the new one is complete. A model that is not trained by a LoRA, and one whose LoRA has not changed,
    has no such folder. A failure warns and does not end the run. ``export`` writes the same files and compares images before it
    keeps them.

    Args:
        folder: The folder of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Writes the folder."""
        model = unwrap(pl_module.chain.model) if isinstance(pl_module, Alignment) else None
        if not trainer.is_global_zero or not isinstance(model, LatentDiffusion) or not isinstance(model.adapter, LoRA):
            return
        # the second factor of a LoRA starts at 0
        if not any(weight.any() for name, weight in model.trainable.items() if "lora_B" in name):
            return
        try:
            self._write(model)
        except (OSError, ValueError) as error:
            warnings.warn(f"{self.folder / NAME} was not written: {error}", stacklevel=2)

    def _write(self, model: LatentDiffusion) -> None:
        new, old = self.folder / f".{NAME}", self.folder / NAME
        shutil.rmtree(new, ignore_errors=True)
        with new_folder(new) as part:
            exporter_of(model).save(model, part)
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)


def exporter_of(model: LatentDiffusion) -> "Exporter":
    """Returns the exporter of the LoRA of a model."""
    # diffusers and peft take seconds to import, which a run that is only parsed need not pay
    from rlr.models.export.diffusers_lora import DiffusersLoRA
    from rlr.models.export.peft_adapter import PeftAdapter

    try:
        model.pipeline_class()
    except ValueError:
        return PeftAdapter()
    return DiffusersLoRA()
