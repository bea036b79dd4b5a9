r"""What ``optimization.overlap_scoring`` saves with a slow judge: ``python -m experiments.cost.overlap``.

A round of :math:`n` batches on the built-in model. The judge is another process or machine: it takes no time of this one, and
answers a batch after the seconds :math:`r` of a rollout. Training runs with scores at once and with scores in the background,
in turn. Without the seconds :math:`l` that learning from the round takes, the speed-up would be :math:`2 n / (n + 1)`.
"""

import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from statistics import median
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
from rlr.samplers import DDIM
from rlr.toy.data import WorldPrompts
from rlr.toy.models import Tiny

CASES: dict[str, Callable[[], Estimator]] = {
    "AWM, 2 levels": lambda: AWM(process=ForwardProcess(2), num_minibatches=1),
    "HalfOrder(1), one segment": lambda: HalfOrder(1, segments=1),
    "HalfOrder(1), every step": lambda: HalfOrder(1, segments=None),
    "DDPO, one update": lambda: DDPO(1),
    "ZerothOrder, two-point": ZerothOrder,
}


class SlowJudge(Brightness):
    """Answers after some seconds in which it needs nothing of this machine."""

    differentiable = False

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def forward(self, samples: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        time.sleep(self.seconds)
        return super().forward(samples, prompts)


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


def module(given: Namespace, estimator: Estimator, seconds: float, overlap: bool) -> ImageAlignment:
    """Returns the alignment."""
    optimization = Optimization(accumulate=given.accumulate, overlap_scoring=overlap, log_kl_every=0)
    model = Guidance(Tiny(), 3.0)
    return ImageAlignment(model, DDIM(given.steps, 1.0), SlowJudge(seconds), estimator, optimization)


def rollout_seconds(given: Namespace) -> float:
    """Returns the median seconds of a rollout with decoding."""
    alignment, prompts = module(given, HalfOrder(1), 0.0, False), ["a red circle left of a blue square"] * given.batch

    def sample() -> float:
        began = time.perf_counter()
        alignment._sample(prompts, 0).scores  # noqa: B018 - a rollout is what is measured
        return time.perf_counter() - began

    return median(sample() for _ in range(5))


def round_seconds(given: Namespace, estimator: Estimator, seconds: float, overlap: bool) -> list[float]:
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
        module(given, estimator, seconds, overlap),
        datamodule=WorldPrompts(batch_size=given.batch, samples_per_prompt=2),
    )
    return clock.rounds


def line(given: Namespace, name: str, seconds: float) -> str:
    """Measures one estimator and returns its row."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(given.repeats):
        for overlap in (False, True):
            times[overlap] += round_seconds(given, CASES[name](), seconds, overlap)
    one, other = (median(times[overlap]) for overlap in (False, True))
    return f"| {name} | {one:.2f} | {other:.2f} | {one / other:.2f} |"


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser("python -m experiments.cost.overlap", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--batch", type=int, default=8, help="samples of a batch (%(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps of the chain (%(default)s)")
    parser.add_argument("--accumulate", type=int, default=8, help="batches of a round (%(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of a run that count (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each kind (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--only", nargs="*", help="only estimators with one of these in their name")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Measures every estimator and writes the table."""
    given = options(args)
    seconds = rollout_seconds(given)
    sys.stdout.write(
        f"T = {given.steps}, batch {given.batch}, {given.accumulate} batches a round, a rollout and the judge {seconds:.2f} s "
        f"each, {provenance.device(torch.device(given.device))}, {provenance.now()}\n\n"
        "| estimator | s / round, at once | s / round, overlapped | speed-up |\n|---|--:|--:|--:|\n"
    )
    for name in CASES:
        if not given.only or any(part in name for part in given.only):
            sys.stdout.write(line(given, name, seconds) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
