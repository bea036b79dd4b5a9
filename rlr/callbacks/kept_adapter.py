"""The trained weights, kept with the run of a logger when training ends."""

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.callbacks.ema import ema_weights
from rlr.callbacks.loggers import keep_files, updates
from rlr.callbacks.lora_folder import lora_exporter, trained_lora
from rlr.io.weights import write_state
from rlr.models import DiffusionModel
from rlr.modules.alignment import Alignment

WEIGHTS = "weights.safetensors"
"""The file of trained weights that are no LoRA."""
LARGEST = 64_000_000
"""The most trained weights that are kept where they are no LoRA, 256 MB in float32; ``last.ckpt`` holds larger ones."""
_NOTHING = keep_files.dispatch(object)


class KeptAdapter(Callback):
    """Passes the trained weights to the loggers that keep files when training ends, those of an EMA if there is one.

    A LoRA is written for diffusers or, where the model has no pipeline of diffusers, for peft. Other weights are written under
    their own names if they are at most 64 million.
    """

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # a rank other than the first has nothing to write; a logger without files would have the work done for nothing
        loggers = [logger for logger in trainer.loggers if keep_files.dispatch(type(logger)) is not _NOTHING]
        if not isinstance(pl_module, Alignment) or not loggers or not trainer.is_global_zero:
            return
        label, running = pl_module.reward.label, pl_module.progress.running
        facts = {"updates": updates(trainer, pl_module), "reward": label, "running_reward": running}
        try:
            with TemporaryDirectory() as folder, ema_weights(trainer, pl_module):
                written = write_adapter(pl_module.chain.model, Path(folder))
                for logger in loggers if written else ():
                    keep_files(logger, "adapter", Path(folder), facts)
        # a logger may raise anything, and the last checkpoint is still to be written
        except Exception as error:
            warnings.warn(
                f"the adapter was not passed to the loggers ({type(error).__name__}: {error}); `export` writes it from the "
                "checkpoint",
                stacklevel=2,
            )


def write_adapter(model: DiffusionModel, folder: Path) -> bool:
    """Writes the trained weights of a model into an empty folder; returns whether they are small enough."""
    lora = trained_lora(model)
    if lora is not None:
        lora_exporter(lora).save(lora, folder)
        return True
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.trainable.items()}
    small = 0 < sum(weight.numel() for weight in weights.values()) <= LARGEST
    if small:
        write_state(folder / WEIGHTS, weights)
    return small
