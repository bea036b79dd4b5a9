r"""The bytes that processes exchange for an update, by estimator: ``python -m experiments.cost.communication``.

Training runs on the built-in model in forked processes (gloo), and the collectives of ``torch.distributed`` are counted. Among
:math:`W` processes, an all-reduce of :math:`n` bytes sends :math:`2 n (W - 1) / W` bytes from each (ring), an all-gather of
:math:`n` bytes of each process :math:`n (W - 1)`, and a broadcast :math:`n` from its source. Where the batch of a process stays
the same, the payloads :math:`n` do not depend on :math:`W`, as the runs show, so the numbers of more processes follow.
"""

import json
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch.distributed import distributed_c10d

from rlr.distributed import rank
from rlr.estimators import (
    AWM,
    DDPO,
    GRPO,
    RLR,
    AlignProp,
    DiffusionNFT,
    FirstOrder,
    ForwardProcess,
    HalfOrderRLR,
    LookAhead,
    ZerothOrder,
)
from rlr.estimators.base import Estimator
from rlr.evaluation import provenance
from rlr.models import Guidance, LoRA
from rlr.modules import ImageAlignment
from rlr.modules.optimization import Optimization
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.data import WorldPrompts
from rlr.toy.models import Tiny

CASES: dict[str, Callable[[], Estimator]] = {
    "FirstOrder(1)": lambda: FirstOrder(1),
    "AlignProp": AlignProp,
    "RLR(2)": lambda: RLR(2),
    "HalfOrderRLR(2), all segments, look-ahead": lambda: HalfOrderRLR(2, None, control=LookAhead()),
    "ZerothOrder": ZerothOrder,
    "DDPO(2)": lambda: DDPO(2),
    "GRPO": GRPO,
    "AWM, 2 levels": lambda: AWM(process=ForwardProcess(2)),
    "DiffusionNFT, 2 levels": lambda: DiffusionNFT(process=ForwardProcess(2)),
}

SENT: dict[str, Callable[[int, int], float]] = {
    "all_reduce": lambda n, w: 2 * n * (w - 1) / w,
    "all_gather": lambda n, w: n * (w - 1),
    "broadcast": lambda n, w: n,
}
"""The bytes that a process sends in a collective of a payload among so many processes."""
PAYLOAD = {"all_reduce": 0, "all_gather": 1, "broadcast": 0}
"""Which argument of a collective is the tensor of this process."""


class Traffic(Callback):
    """Counts collectives by kind and payload, from the first update on, and leaves the counts of a process in a file.

    Args:
        folder: The folder of the files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls: Counter[tuple[str, int]] = Counter()
        self.since = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Begins to count after the first round, which may do what later ones do not."""
        if not self.since:
            torch.set_num_threads(1)  # a forked process has none of its parent's threads
            self.since = trainer.global_step
            for kind in SENT:
                self._count(kind)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes the counts of an update."""
        updates = trainer.global_step - self.since
        counts = [[kind, size, number / updates] for (kind, size), number in sorted(self.calls.items())]
        (self.folder / f"{rank()}.json").write_text(json.dumps(counts))

    def _count(self, kind: str) -> None:
        function = getattr(distributed_c10d, kind)

        def counting(*args: Any, **kwargs: Any) -> Any:
            tensor = args[PAYLOAD[kind]] if len(args) > PAYLOAD[kind] else kwargs["tensor"]
            self.calls[kind, tensor.numel() * tensor.element_size()] += 1
            return function(*args, **kwargs)

        # objects are exchanged by functions that call these in the first module
        for module in (distributed_c10d, torch.distributed):
            setattr(module, kind, counting)


def measure(given: Namespace, estimator: Estimator, processes: int) -> list[tuple[str, int, float]]:
    """Returns the collectives of an update: kind, payload in bytes, number of calls, of the first process."""
    module = ImageAlignment(
        Guidance(Tiny(trainable=LoRA(given.rank)), 3.0), DDIM(given.steps, 1.0), Brightness(), estimator, Optimization()
    )
    silent: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    updates = estimator.updates_per_round * 3
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=-1, max_steps=updates, accelerator="cpu", strategy="ddp_fork", devices=processes,
            callbacks=[Traffic(Path(folder))], num_sanity_val_steps=0, **silent,
        )  # fmt: skip
        trainer.fit(module, datamodule=WorldPrompts(batch_size=given.batch, samples_per_prompt=2))
        return [(kind, size, n) for kind, size, n in json.loads((Path(folder) / "0.json").read_text())]


def sent(calls: Sequence[tuple[str, int, float]], processes: int) -> float:
    """Returns the bytes that a process sends for an update."""
    return sum(number * SENT[kind](size, processes) for kind, size, number in calls)


def line(name: str, found: Mapping[int, Sequence[tuple[str, int, float]]], gradient: int, most: int) -> str:
    """Returns a row of the table."""
    last = found[max(found)]
    exchanges = sum(number for *_, number in last)
    numbers = [*(sent(calls, processes) for processes, calls in found.items()), sent(last, most)]
    share = gradient * SENT["all_reduce"](1, most) / numbers[-1]
    return f"| {name} | {exchanges:g} | " + " | ".join(f"{number:,.0f}" for number in numbers) + f" | {share:.1%} |"


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser("python -m experiments.cost.communication", description="Bytes sent for an update.")
    parser.add_argument("--batch", type=int, default=4, help="samples of a process (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps of the chain (%(default)s)")
    parser.add_argument("--rank", type=int, default=4, help="rank of the LoRA (%(default)s)")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="numbers of processes (%(default)s)")
    parser.add_argument("--most", type=int, default=64, help="the number to extrapolate to (%(default)s)")
    parser.add_argument("--only", nargs="*", help="only estimators with one of these in their name")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Measures every estimator and writes the table."""
    given = options(args)
    gradient = sum(4 * weight.numel() for weight in Tiny(trainable=LoRA(given.rank)).trainable.values())
    columns = [*(f"W = {n}" for n in given.processes), f"W = {given.most}"]
    sys.stdout.write(
        f"T = {given.steps}, batch {given.batch} a process, LoRA of rank {given.rank}: a gradient of {gradient:,} bytes; "
        f"gloo, {provenance.device(torch.device('cpu'))}, {provenance.now()}\n\n"
        f"| estimator | exchanges | {' | '.join(columns)} | gradient's share at {given.most} |\n"
        f"|---|--:|{'--:|' * len(columns)}--:|\n"
    )
    for name, make in CASES.items():
        if not given.only or any(part in name for part in given.only):
            found = {n: measure(given, make(), n) for n in given.processes}
            sys.stdout.write(line(name, found, gradient, given.most) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
