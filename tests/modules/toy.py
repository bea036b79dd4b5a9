"""A model, a reward and an estimator that are small enough to state laws about the training step itself."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields

import torch
from torch import Tensor, nn

from rlr.estimators.base import Estimator, Term
from rlr.models.base import Condition, DiffusionModel, Size
from rlr.models.staged import StagedPrompt
from rlr.modules.memory import Memory
from rlr.modules.optimization import Optimization
from rlr.rewards.base import Reward
from rlr.rollout import Rollout
from rlr.schedules import DiscreteSchedule

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven")
STAGED = [
    StagedPrompt("one", ("zero", "one", "seven")),
    "five",
    StagedPrompt("two", ("six", "two")),
    StagedPrompt("one", ("three", "one", "four"), (0.5, 0.8)),
    "six",
    StagedPrompt("four", ("one", "five")),
]
"""Prompts of which some are staged, in two and three stages."""


class AffineModel(DiffusionModel):
    """Predicts x̂₀ = tanh(W x + b + c) for images of 3 × 2 × 2, where c is the prompt's number over 8."""

    def __init__(self, trained: bool = True, frozen: bool = True, dtype: str = "float32") -> None:
        super().__init__()
        self.size = Size(2, 2)
        generator = torch.Generator().manual_seed(0)
        kind = getattr(torch, dtype)
        weight = 0.1 * torch.randn(12, 12, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight.to(kind), requires_grad=trained)
        self.bias = nn.Parameter(torch.zeros(12, dtype=kind), requires_grad=trained)
        self.base = nn.Linear(12, 12).requires_grad_(False) if frozen else None
        self.dropout = nn.Dropout(0.5)

    def latent_shape(self, size: Size) -> tuple[int, ...]:
        return (3, 2, 2)

    def schedule(self, size: Size) -> DiscreteSchedule:
        return DiscreteSchedule(DiscreteSchedule.scaled_linear())

    def encode(self, prompts: Sequence[str]) -> Condition:
        numbers = [WORDS.index(prompt) / 8 for prompt in prompts]
        return Condition({"c": torch.tensor(numbers, dtype=self.weight.dtype, device=self.device)})

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        hidden = self.dropout(x.flatten(1).to(self.weight.dtype))
        out = torch.nn.functional.linear(hidden, self.weight, self.bias)
        return torch.tanh(out + condition.tensors["c"][:, None]).view_as(x).to(x.dtype)

    def decode(self, x: Tensor, frames: Sequence[int] | None = None) -> Tensor:
        return torch.sigmoid(x)


class Remembering(AffineModel):
    """The toy with a copy of the weights that it was made with."""

    def __init__(self, **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]
        self.first = {name: weight.detach().clone() for name, weight in self.trainable.items()}
        self.asked = 0

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.asked += 1
        now = {name: weight.data for name, weight in self.trainable.items()}
        for name, weight in self.trainable.items():
            weight.data = self.first[name]
        try:
            yield
        finally:
            for name, weight in self.trainable.items():
                weight.data = now[name]


class Level(Reward):
    """Minus the squared distance of the mean pixel from the prompt's number over 8, plus the red corner."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        wanted = torch.tensor([WORDS.index(p) / 8 for p in prompts], dtype=samples.dtype, device=samples.device)
        return samples[:, 0, 0, 0] - (samples.flatten(1).mean(1) - wanted) ** 2


class Hard(Level):
    """The same as a black box."""

    differentiable = False

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().forward(samples.detach(), prompts)


class Replay(Estimator):
    """One first-order replay of the last ``steps`` steps, in one term for each of ``names``.

    ``spoil`` may turn the loss of a term into something else; ``seen`` is called with every term before it is yielded.
    """

    def __init__(
        self,
        steps: int = 2,
        names: Sequence[str] = ("first_order",),
        spoil: Callable[[Tensor], Tensor] | None = None,
        seen: Callable[[Tensor], None] | None = None,
    ) -> None:
        self.steps, self.names, self.spoil, self.seen = steps, names, spoil, seen
        self.rounds = 0

    @property
    def differentiable(self) -> bool:
        return True

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        self.rounds += 1
        for name in self.names:
            yield self.term(name, rollout)

    def term(self, name: str, rollout: Rollout) -> Term:
        loss = -rollout.score_recorded(rollout.replay_sample(self.steps)).mean()
        if self.seen is not None:
            self.seen(loss)
        if self.spoil is not None:
            loss = self.spoil(loss)
        return Term(name, loss, tuple(range(self.steps, 0, -1)))

    def state_dict(self) -> dict[str, object]:
        return {"rounds": self.rounds}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.rounds = int(state["rounds"])  # type: ignore[call-overload]


def arguments(changes: dict[str, object]) -> dict[str, object]:
    """Returns arguments of an alignment, those of its ``optimization`` and ``memory`` put together."""
    rest = dict(changes)
    for name, kind in (("optimization", Optimization), ("memory", Memory)):
        own = {field.name: rest.pop(field.name) for field in fields(kind) if field.name in rest}
        rest.setdefault(name, kind(**own))  # type: ignore[arg-type]
    return rest


def align(**changes: object):
    """Returns an ImageAlignment of the toys, with some arguments of it, its optimization or its memory changed."""
    from rlr.modules import ImageAlignment
    from rlr.samplers import DDIM

    settings = {
        "model": AffineModel(),
        "sampler": DDIM(4, eta=1.0),
        "reward": Level(),
        "estimator": Replay(),
        "lr": 0.05,
        **changes,
    }
    return ImageAlignment(**arguments(settings))


def run(module, data, steps: int = 1, **settings: object):
    """Trains ``module`` for ``steps`` updates on the CPU, in silence, and returns the trainer."""
    from lightning.pytorch import Trainer

    ckpt_path = settings.pop("ckpt_path", None)
    silent = {
        "max_epochs": -1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
    }
    trainer = Trainer(max_steps=steps, **{**silent, **settings})
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def prompts(batch_size: int = 4, **settings: object):
    from rlr.data import Prompts

    return Prompts(list(WORDS), batch_size=batch_size, **settings)


def weights(module) -> Tensor:
    return torch.cat([w.detach().flatten() for w in module.weights])
