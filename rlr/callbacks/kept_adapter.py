"""The trained weights, kept with the run of a logger when training ends."""

from pathlib import Path
from tempfile import TemporaryDirectory

from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import save_file

from rlr.callbacks.ema import ema_weights
from rlr.callbacks.loggers import keep_files, updates
from rlr.callbacks.lora_folder import exporter_of
from rlr.models import DiffusionModel
from rlr.models.adapters import LoRA
from rlr.models.latent import LatentDiffusion
from rlr.models.wrapper import unwrap
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
        with TemporaryDirectory() as folder, ema_weights(trainer, pl_module):
            written = write_adapter(pl_module.chain.model, Path(folder))
            for logger in loggers if written else ():
                keep_files(logger, "adapter", Path(folder), facts)


def write_adapter(model: DiffusionModel, folder: Path) -> bool:
    """Writes the trained weights of a model into an empty folder; returns whether they are small enough."""
    base = unwrap(model)
    if isinstance(base, LatentDiffusion) and isinstance(base.adapter, LoRA):
        exporter_of(base).save(base, folder)
        return True
    weights = {name: weight.detach().cpu().contiguous() for name, weight in model.trainable.items()}
    small = 0 < sum(weight.numel() for weight in weights.values()) <= LARGEST
    if small:
        save_file(weights, folder / WEIGHTS)
    return small
