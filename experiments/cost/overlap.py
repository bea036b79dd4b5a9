r"""What ``scoring: InBackground`` saves with a slow judge: ``python -m experiments.cost.overlap``.

A round of :math:`n` batches on the built-in model. The judge is another process or machine: it takes no time of this one, and
answers a batch after as many seconds as its rollout took. Training runs with scores at once and with scores in the background,
in turn. Of :math:`r` seconds a rollout and :math:`l` of learning from a round, the speed-up is about
:math:`(2 n r + l) / ((n + 1) r + l)`.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from rlr.estimators import AWM, DDPO, ForwardProcess, HalfOrder, ZerothOrder
from rlr.estimators.base import Estimator
from rlr.evaluation import provenance
from rlr.models import Guidance
from rlr.modules import ImageAlignment
from rlr.modules.optimization import Optimization
from rlr.rewards import Brightness
from rlr.rollout import Rollout
from rlr.samplers import DDIM
from rlr.scoring import InBackground
from rlr.toy.data import WorldPrompts
from rlr.toy.models import Tiny

CASES: dict[str, Callable[[], Estimator]] = {
    "AWM, 1 level": lambda: AWM(process=ForwardProcess(1), num_minibatches=1),
    "HalfOrder(1), one segment": lambda: HalfOrder(1, segments=1),
    "DDPO, one update": lambda: DDPO(1),
    "ZerothOrder, two-point": ZerothOrder,
}


class SlowJudge(Brightness):
    """Answers after some seconds in which it needs nothing of this machine."""

    differentiable = False

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def forward(self, samples: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        time.sleep(self.seconds)
        return super().forward(samples, prompts)


class Judged(ImageAlignment):
    """Training whose judge takes as long as the latest rollout did, whatever else the machine does."""

    reward: SlowJudge

    def _sample(self, prompts: Sequence[str], number: int) -> Rollout:
        began = time.perf_counter()
        rollout = super()._sample(prompts, number)
        self.reward.seconds = time.perf_counter() - began
        return rollout


class Clock(Callback):
    """The seconds of each round, the first one aside."""

    def __init__(self) -> None:
        self.rounds: list[float] = []
        self._began, self._updates = 0.0, 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Notes the time of a round that has ended."""
        if trainer.global_step > self._updates:
            now = time.perf_counter()
            if self._updates:
                self.rounds.append(now - self._began)
            self._began, self._updates = now, trainer.global_step


def module(given: Namespace, estimator: Estimator, overlap: bool) -> Judged:
    """Returns the alignment."""
    optimization = Optimization(accumulate=given.accumulate, log_kl_every=0)
    model, sampler = Guidance(Tiny(), 3.0), DDIM(given.steps, 1.0)
    return Judged(model, sampler, SlowJudge(), estimator, optimization, scoring=InBackground() if overlap else None)


def round_seconds(given: Namespace, estimator: Estimator, overlap: bool) -> list[float]:
    """Returns the seconds of rounds of training."""
    clock = Clock()
    silent: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(
        max_epochs=-1, max_steps=given.rounds + 1, accelerator=given.device, devices=1, callbacks=[clock], **silent
    )
    trainer.fit(
        module(given, estimator, overlap),
        datamodule=WorldPrompts(batch_size=given.batch, samples_per_prompt=2),
    )
    return clock.rounds


def line(given: Namespace, name: str) -> str:
    """Measures one estimator and returns its row."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(given.repeats):
        for overlap in (False, True):
            times[overlap] += round_seconds(given, CASES[name](), overlap)
    # the least, because other programs of the machine add to a time and never take from it
    one, other = (min(times[overlap]) for overlap in (False, True))
    return f"| {name} | {one:.2f} | {other:.2f} | {one / other:.2f} |"


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser("python -m experiments.cost.overlap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=4, help="samples of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=50, help="steps of the chain (%(default)s)")
    parser.add_argument("--accumulate", type=int, default=8, help="batches of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of a run that count (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each kind (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--only", nargs="*", help="only estimators with one of these in their name")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Measures every estimator and writes the table."""
    given = options(args)
    sys.stdout.write(
        f"T = {given.steps}, batch {given.batch}, {given.accumulate} batches a round, "
        f"{provenance.device(torch.device(given.device))}, {provenance.now()}\n\n"
        "| estimator | least s / round, at once | least s / round, overlapped | speed-up |\n|---|--:|--:|--:|\n"
    )
    for name in CASES:
        if not given.only or any(part in name for part in given.only):
            sys.stdout.write(line(given, name) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
