r"""What options of an update cost and save: ``python -m experiments.cost.options``.

An update is a rollout, the backward of every term and a step of AdamW, as in :mod:`experiments.cost.step`. Each option is measured
in turn with the plain update, so that other load of the machine slows down both; on a CPU seconds are those of the process. The
difference is that of the gradient from that of the plain update in float32, on the same noises, relative to its norm.
"""

import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import diffusers
import torch
import transformers
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor

from experiments.cost.cases import CASES, SEED
from experiments.cost.shapes import SHAPES
from experiments.cost.step import Bench, say
from rlr.analysis.measure import peak_bytes
from rlr.chain import Chain
from rlr.evaluation import provenance
from rlr.models import Guidance
from rlr.models.base import DiffusionModel
from rlr.modules.memory import Memory
from rlr.modules.speed import Compile, Speed
from rlr.objective import Objective
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.models import Tiny


def slow_attention(model: DiffusionModel) -> None:
    """Takes diffusers' attention without ``scaled_dot_product_attention``, which is the default."""
    for network in model.networks().values():
        network.set_attn_processor(AttnProcessor())  # type: ignore[operator]


@dataclass(frozen=True)
class Option:
    """A way to make an update.

    Args:
        prepare: Changes the model.
        memory: What is given up to save memory.
        dtype: The type of the frozen weights.
        compiled: Whether passes are compiled code, whose tensors are not seen on a CPU.
    """

    prepare: Callable[[DiffusionModel], None] = lambda model: None
    memory: Memory = Memory()  # noqa: RUF009 - frozen
    dtype: Literal["float32", "bfloat16"] = "float32"
    compiled: bool = False


OPTIONS = {
    "attention without SDPA": Option(slow_attention),
    "channels_last": Option(Speed(channels_last=True).apply),
    "bfloat16 network": Option(dtype="bfloat16"),
    "checkpoint_steps": Option(memory=Memory(checkpoint_steps=True)),
    "micro_batch: 2": Option(memory=Memory(micro_batch=2)),
    "compile": Option(Speed(Compile()).apply, compiled=True),
}


class Measured:
    """The update of an option.

    Args:
        given: The options of the command.
        option: The option.
        folder: The folder of the model of random weights.
    """

    def __init__(self, given: Namespace, option: Option, folder: Path) -> None:
        self.given = given
        if given.shape == "builtin":
            model: DiffusionModel = Tiny(dtype=option.dtype)
        else:
            model = SHAPES[given.shape].model(str(folder), option.dtype)
        option.prepare(model)
        chain = option.memory.chain(Guidance(model, 4.0), DDIM(given.steps, eta=1.0)).to(given.device).eval()
        self.bench = Bench(chain, given.batch, 1)
        objective = Objective(chain.model, Brightness())
        objective.micro_batch = chain.micro_batch
        self.bench.objective = objective.of_frames()
        # steps of the optimizer cost what they do, and leave the weights where they are
        for group in self.bench.optimizer.param_groups:
            group.update(lr=0.0)
        self.option = option
        self.case = next(case for case in CASES if case.name == given.estimator)

    @property
    def chain(self) -> Chain:
        """The chain."""
        return self.bench.chain

    def seconds(self) -> float:
        """Returns the seconds of an update: of the process on a CPU, which other programs do not add to, and else of the clock."""
        cuda = self.bench.device.type == "cuda"
        clock = time.perf_counter if cuda else time.process_time
        began = clock()
        self.bench.update(self.case)
        if cuda:
            torch.cuda.synchronize()
        return clock() - began

    def peak(self) -> str:
        """Returns the most MiB of tensors alive at once in an update, beyond those before; of compiled code on a GPU alone."""
        if self.option.compiled and self.bench.device.type != "cuda":
            return "not seen"
        return f"{peak_bytes(lambda: self.bench.update(self.case), self.bench.device) / 2**20:.1f}"

    def gradient(self) -> Tensor:
        """Returns the gradient of an update."""
        bench, weights = self.bench, list(self.chain.model.trainable.values())
        estimator = self.case.estimator(self.chain)
        rollout = estimator.rollout(self.chain, bench.prompts, bench.noises, bench.objective, SEED)
        for term in estimator.terms(rollout):
            term.backward()
            del term
        found = [weight.grad.flatten().float() for weight in weights if weight.grad is not None]
        bench.optimizer.zero_grad()
        return torch.cat(found)


def line(name: str, plain: Measured, other: Measured, repeats: int) -> str:
    """Measures an option and returns its row."""
    first, expected = other.seconds(), plain.gradient()
    difference = (other.gradient() - expected).norm() / expected.norm()
    pairs = [(plain.seconds(), other.seconds()) for _ in range(repeats)]
    one, two = (median(times) for times in zip(*pairs, strict=True))
    peaks = f"{other.peak()} ({plain.peak()})"
    return f"| {name} | {two:.2f} | {two / one:.2f} | {first:.1f} | {peaks} | {difference:.0e} |"


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser("python -m experiments.cost.options", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--shape",
        choices=["builtin", "tiny", "sd14"],
        default="builtin",
        help="the model; the others are random (%(default)s)",
    )
    parser.add_argument(
        "--estimator", default="HalfOrder(1), every step", help="of experiments.cost.cases (%(default)s)"
    )
    parser.add_argument("--batch", type=int, default=8, help="samples of an update (%(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps of the chain (%(default)s)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="updates of each kind; the median counts (%(default)s)")
    parser.add_argument("--only", nargs="*", help="only options with one of these in their name")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Measures every option and prints the table."""
    given = options(args)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    where = provenance.device(torch.device(given.device))
    say(f"{given.shape}, {given.estimator}, T = {given.steps}, batch {given.batch}, {where}, {provenance.now()}\n")
    say("| option | s / update | over plain | first update, s | peak MiB (plain) | difference of the gradient |")
    say("|---|--:|--:|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) if given.shape == "builtin" else SHAPES[given.shape].write(Path(place), torch.float32)
        plain = Measured(given, Option(), folder)
        plain.seconds()
        for name, option in OPTIONS.items():
            if not given.only or any(part in name for part in given.only):
                say(line(name, plain, Measured(given, option, folder), given.repeats))


if __name__ == "__main__":
    main()
