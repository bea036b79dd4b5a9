"""What the pretraining modules share: AdamW with warm-up and cosine, an average of the weights, resumable noise."""

import copy
import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Generator, Tensor, nn

RANDOM = "random"
"""The key under which a checkpoint holds the state of torch's global generator."""


class Pretraining(LightningModule):
    r"""Trains ``networks`` and keeps ``average``, the exponential average of their weights that is evaluated.

    With learning rate :math:`\eta`, warm-up :math:`w` and :math:`N` = ``max_steps``, step :math:`k` uses
    :math:`\eta \min(1, (k+1)/w) \cdot (\epsilon + (1-\epsilon) (1 + \cos(\pi k/N)) / 2)` with
    :math:`\epsilon = 0.01`, and the average decays by :math:`\min(\beta, (k+2)/(k+11))`.
    All randomness is a function of ``seed`` and the step, but for the dropout of networks that have one: it draws from
    torch's global generator, whose state checkpoints keep. So a resumed run repeats an uninterrupted one.
    """

    def __init__(
        self,
        networks: nn.ModuleDict,
        lr: float,
        warmup: int = 100,
        weight_decay: float = 0.01,
        decay: float = 0.998,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.networks = networks.train()
        self.average = copy.deepcopy(networks).eval().requires_grad_(False)
        self.lr, self.warmup, self.weight_decay, self.decay, self.seed = lr, warmup, weight_decay, decay, seed
        self._resumed: Tensor | None = None

    def noise(self) -> Generator:
        """The generator of this step's randomness on this process."""
        step = self.global_step * self.trainer.world_size + self.global_rank
        return torch.Generator(self.device).manual_seed(self.seed * 1_000_003 + step)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the state of the generator that dropout draws from."""
        checkpoint[RANDOM] = torch.get_rng_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up that state, where the checkpoint has it."""
        self._resumed = checkpoint.get(RANDOM)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Restores it: here, since a data loader draws from the generator when it begins."""
        if self._resumed is not None:
            torch.set_rng_state(self._resumed.cpu())
            self._resumed = None

    def configure_optimizers(self) -> Any:
        """AdamW and the schedule of the class, for ``max_steps`` steps in all."""
        optimizer = torch.optim.AdamW(
            self.networks.parameters(), self.lr, betas=(0.9, 0.99), weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def factor(self, step: int) -> float:
        """What the learning rate of ``step`` is multiplied by."""
        if self.trainer.max_steps < 1:
            raise ValueError(
                "Pretraining has no end: its cosine schedule needs trainer.max_steps; set it in the config."
            )
        cosine = (1 + math.cos(math.pi * min(1.0, step / self.trainer.max_steps))) / 2
        return min(1.0, (step + 1) / self.warmup) * (0.01 + 0.99 * cosine)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Steps, then moves the average towards the weights: here, since checkpoints are written before later hooks."""
        super().optimizer_step(*args, **kwargs)
        step = self.global_step + 1
        rate = 1 - min(self.decay, (step + 1) / (step + 10))
        targets: list[Tensor] = [p.data for p in self.networks.parameters()]
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), targets, rate)
