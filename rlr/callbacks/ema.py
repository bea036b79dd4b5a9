r"""An exponential average of the trained weights."""

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from rlr.distributed import split_like
from rlr.models.swapped import swapped
from rlr.modules.alignment import Alignment

# Lightning's WeightAveraging does not serve here: it keeps a deep copy of the whole module, the frozen network and the
# reward included; it puts the average's whole state_dict into checkpoints, which hold the trained weights alone; it
# leaves test and predict to chance; and it updates after other callbacks may have looked.


class EMA(Callback):
    r"""Averages the trained weights, and puts the average in their place whenever the model is looked at.

    After update :math:`k = 1, 2, \dots`

    .. math:: \bar\theta \leftarrow \beta_k \bar\theta + (1 - \beta_k) \theta,
        \qquad \beta_k = \min\Bigl(\beta, \frac{1 + k}{10 + k}\Bigr),

    from :math:`\bar\theta = \theta` before the first. Skipped updates do not count. Validation, test, prediction and
    the evaluation callbacks see :math:`\bar\theta`; training goes on with :math:`\theta`, to the bit. A checkpoint
    holds both, and a resumed run continues both; ``test`` and ``predict`` with this callback use its average.

    Args:
        decay: The decay :math:`\beta` in [0, 1).
        warmup: Whether :math:`\beta_k` rises to it as above; otherwise it is :math:`\beta` from the start.
    """

    def __init__(self, decay: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"EMA's decay is in [0, 1), and {decay} is not; 0.999 averages over about 1000 updates")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        self.average: dict[str, Tensor] = {}
        self._swapped: ExitStack | None = None
        self._hooks: list[Any] = []

    def rate(self, update: int) -> float:
        r"""Returns :math:`\beta_k` of update :math:`k`."""
        return min(self.decay, (1 + update) / (10 + update)) if self.warmup else self.decay

    # ------------------------------------------------------------------ averaging

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Alignment)
        self._place_average(pl_module)
        if not self.average:
            self.average = {name: weight.detach().clone() for name, weight in _weights(pl_module).items()}
        # the optimizer's own hook: it is called before any callback looks, and not for updates that are skipped
        self._hooks = [
            optimizer.register_step_post_hook(lambda *_: self._update(pl_module)) for optimizer in trainer.optimizers
        ]

    @torch.no_grad()
    def _update(self, module: Alignment) -> None:
        self.updates += 1
        weights = _weights(module)
        targets = [weights[name].detach() for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), targets, 1 - self.rate(self.updates))

    def _place_average(self, module: Alignment) -> None:
        """Moves a loaded average to where the weights are.

        Raises:
            ValueError: If it is not of these weights.
        """
        weights = _weights(module)
        if self.average and {n: a.shape for n, a in self.average.items()} != {n: w.shape for n, w in weights.items()}:
            raise ValueError(
                f"the EMA of the checkpoint is not of the trained weights of this {type(module.chain.model).__name__}; "
                "load it with the config it was trained with"
            )
        self.average = {name: split_like(value, weights[name]) for name, value in self.average.items()}

    # ------------------------------------------------------------------ looking

    @contextmanager
    def applied(self, module: Alignment) -> Iterator[None]:
        """Within, the weights are the average; afterwards themselves again, to the bit, also after an exception."""
        if self._swapped or not self.average:
            yield
            return
        self._swap_in(module)
        try:
            yield
        finally:
            self._swap_out()

    def _swap_in(self, module: LightningModule) -> None:
        assert isinstance(module, Alignment)
        if self._swapped is None and self.average:
            self._place_average(module)
            self._swapped = ExitStack()
            self._swapped.enter_context(swapped(module.chain.model, self.average))

    def _swap_out(self) -> None:
        if self._swapped is not None:
            self._swapped.close()
            self._swapped = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_in(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out()

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._miss(trainer)
        self._swap_in(pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._miss(trainer)
        self._swap_in(pl_module)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._swap_out()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._swap_out()

    def _miss(self, trainer: Trainer) -> None:
        if trainer.ckpt_path and not self.average:
            warnings.warn(
                f"{trainer.ckpt_path} holds no EMA, so the trained weights themselves are used; train with the EMA "
                "callback to have one",
                stacklevel=2,
            )

    # ------------------------------------------------------------------ keeping

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "average": dict(self.average)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates = state_dict["updates"]
        self.average = {name: value.clone() for name, value in state_dict["average"].items()}

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks = []


@contextmanager
def ema_weights(trainer: Trainer, module: Alignment) -> Iterator[None]:
    """Within, the weights are their average where an :class:`EMA` keeps one."""
    keeper = next((callback for callback in trainer.callbacks if isinstance(callback, EMA)), None)  # type: ignore[attr-defined]
    if keeper is None:
        yield
        return
    with keeper.applied(module):
        yield


def _weights(module: Alignment) -> dict[str, torch.nn.Parameter]:
    return module.chain.model.trainable
