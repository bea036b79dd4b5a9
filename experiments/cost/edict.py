r"""The inversion error of coupled chains, and their distance from each other and from DDIM: ``python -m experiments.cost.edict``.

On the built-in model, from latents of held-out captions. *Error* is the largest difference between a latent :math:`x_T` and the
result of inverting its sample; *apart* is the mean of :math:`|x_0 - y_0|`, *from DDIM* that of :math:`|x_0 - x_0^{DDIM}|`.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import NamedTuple

import torch

from rlr.chain import Chain
from rlr.evaluation import provenance
from rlr.models import Frozen, Guidance
from rlr.models.base import DiffusionModel
from rlr.modules.latents.edict import EDICT
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from rlr.toy.world.prompts import held_out_prompts

HEAD = "| weights | guidance | T | p | error | apart | from DDIM |\n|---|--:|--:|--:|--:|--:|--:|"


class Case(NamedTuple):
    """A setting: type of the weights, guidance scale, number of steps, mixing."""

    dtype: str
    scale: float
    steps: int
    mixing: float


CASES = (
    Case("float32", 1.0, 10, 0.93),
    Case("float32", 1.0, 20, 0.93),
    Case("float32", 1.0, 50, 0.93),
    Case("float32", 1.0, 20, 0.8),
    Case("float32", 1.0, 20, 0.6),
    Case("float32", 3.0, 20, 0.93),
    Case("float32", 3.0, 50, 0.93),
    Case("float32", 3.0, 20, 0.8),
    Case("float32", 7.5, 50, 0.93),
    Case("float32", 7.5, 50, 0.8),
    Case("bfloat16", 1.0, 20, 0.93),
    Case("bfloat16", 1.0, 50, 0.93),
)


class Measured(NamedTuple):
    """The measurements of one setting, see the module."""

    error: float
    apart: float
    from_ddim: float


@torch.no_grad()
def measure(model: DiffusionModel, steps: int, mixing: float, prompts: Sequence[str]) -> Measured:
    """Samples the prompts with coupled chains, inverts the samples, and samples the prompts with DDIM."""
    chain = Chain(model, DDIM(steps, eta=0.0))
    noises, condition, coupled = chain.draw(range(len(prompts))), chain.encode(prompts), EDICT(chain, mixing)
    start = torch.stack([noises[steps]] * 2)
    end = coupled.sample(start, condition)
    error = (coupled.invert(end, condition) - start).abs().max().item()
    ddim = chain.sample(condition, noises).states[0]
    return Measured(error, (end[0] - end[1]).abs().mean().item(), (end[0] - ddim).abs().mean().item())


def line(case: Case, found: Measured) -> str:
    """Returns a row of the table."""
    numbers = " | ".join(f"{value:.2g}" for value in found)
    return f"| {case.dtype} | {case.scale:g} | {case.steps} | {case.mixing:g} | {numbers} |"


def arguments(args: Sequence[str] | None) -> Namespace:
    """Reads the command line."""
    parser = ArgumentParser(prog="python -m experiments.cost.edict", description=__doc__)
    parser.add_argument("--samples", type=int, default=4, help="number of samples")
    parser.add_argument("--seed", type=int, default=3, help="seed of the captions")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Prints the table."""
    options = arguments(args)
    prompts = held_out_prompts(options.samples, options.seed)
    sys.stdout.write(f"{provenance.device(torch.device('cpu'))}, {provenance.now()}\n\n{HEAD}\n")
    for case in CASES:
        model = Guidance(Tiny(trainable=Frozen(), dtype=case.dtype), case.scale)
        sys.stdout.write(f"{line(case, measure(model, case.steps, case.mixing, prompts))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
