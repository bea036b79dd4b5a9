r"""What antithetic noise is worth: ``python -m experiments.cost.antithetic``.

Two samples with the noises :math:`z` and :math:`-z` have gradient estimates :math:`\hat g_+, \hat g_-` of one mean. The variance of
:math:`(\hat g_+ + \hat g_-) / 2` is :math:`1 + \rho` times that of two independent samples, with the correlation

.. math:: \rho = \frac{\mathrm{tr}\,\mathrm{Cov}(\hat g_+, \hat g_-)}{\mathrm{tr}\,\mathrm{Cov}(\hat g)}.

It is :math:`-1` for an estimate that is odd in the noise, and :math:`1` for one that is even.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from experiments.cost.directions import gradients
from experiments.cost.points import trained
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.estimators import AllSteps, ConstantCoefficients, Estimator, FirstOrder, HalfOrder, HalfOrderRLR, LookAhead
from rlr.evaluation import provenance
from rlr.samplers import DDIM


class Mirrored(Problem):
    """The same, with noises whose second half are those of the first with the other sign."""

    def noises(self, seed: int) -> Tensor:
        half = replace(self, prompts=self.prompts[: len(self.prompts) // 2])
        z = Problem.noises(half, seed)
        return torch.cat([z, -z], 1)


ESTIMATORS: dict[str, Estimator] = {
    "FirstOrder(all)": FirstOrder(AllSteps()),
    "FirstOrder(1)": FirstOrder(1),
    "FirstOrder(2)": FirstOrder(2),
    "HalfOrder(1)": HalfOrder(1),
    "HalfOrderRLR(1, all)": HalfOrderRLR(1, None),
    "HalfOrderRLR(1, all, LookAhead)": HalfOrderRLR(1, None, control=LookAhead(ConstantCoefficients())),
    "HalfOrderRLR(1, all, 2 steps, pathwise half)": HalfOrderRLR(
        1, None, 2, control=LookAhead(ConstantCoefficients(), ratio_weight=0, start_value=False)
    ),
}


def correlation(g: Tensor, groups: int = 20) -> tuple[float, float]:
    r"""Returns :math:`\rho` and its standard error from the estimates of the samples, with shape :math:`(2 n, d)`."""
    plus, minus = (g - g.mean(0)).chunk(2)
    products = (plus * minus).sum(1)
    sizes = (plus.square().sum(1) + minus.square().sum(1)) / 2
    parts = torch.stack([p.sum() / s.sum() for p, s in zip(products.chunk(groups), sizes.chunk(groups), strict=True)])
    return (products.sum() / sizes.sum()).item(), (parts.std() / groups**0.5).item()


def main(args: Sequence[str] | None = None) -> None:
    """Reads the command line, measures and prints the table."""
    parser = ArgumentParser("python -m experiments.cost.antithetic", description="What antithetic noise is worth.")
    parser.add_argument("--steps", type=int, default=20, help="length T of the chain (%(default)s)")
    parser.add_argument("--samples", type=int, default=2000, help="samples, half of them mirrored (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    chain = Chain(trained(), DDIM(options.steps, 1.0))
    sys.stdout.write("| estimator | ρ | variance of a pair over that of independent samples |\n|---|--:|--:|\n")
    for name, estimator in ESTIMATORS.items():
        rho, error = correlation(gradients(chain, options.samples, options.seed, estimator, Mirrored))
        sys.stdout.write(f"| {name} | {rho:.3f} ± {error:.3f} | {1 + rho:.2f} |\n")
    sys.stdout.write(f"\n{vars(options)}, {provenance.device(torch.device('cpu'))}, {provenance.now()}\n")


if __name__ == "__main__":
    main()
