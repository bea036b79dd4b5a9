r"""Bias and variance of every estimator: ``python -m benchmarks.variance`` (four minutes on a CPU).

The reference :math:`g` is the mean of many gradients of full backpropagation on a model of points in :math:`R^8`
(:mod:`benchmarks.toy`). Of each estimator's draws :math:`\hat g` this prints

* the share :math:`E[\hat g] \cdot g / \|g\|^2` with its standard error, 1 for an unbiased estimator;
* the bias :math:`\|E[\hat g] - g\| / \|g\|`, the variance of the mean taken off, with the interval of two standard errors;
* the variance :math:`\mathrm{tr}\,\mathrm{Cov}(\hat g) / \|g\|^2`;
* the mean cosine of one draw with :math:`g`.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.toy import reward, trained
from rlr.chain import Chain
from rlr.estimators import RLR, AllSteps, FirstOrder, HalfOrder, HalfOrderRLR, LookAhead, ZerothOrder
from rlr.estimators.base import Estimator
from rlr.evaluation import facts
from rlr.samplers import DDIM
from rlr.seeding import spawn

CASES: dict[str, Callable[[], Estimator]] = {
    "FirstOrder(all)": lambda: FirstOrder(AllSteps()),
    "FirstOrder(1)": lambda: FirstOrder(1),
    "FirstOrder(5)": lambda: FirstOrder(5),
    "FirstOrder(10)": lambda: FirstOrder(10),
    "HalfOrder(1)": lambda: HalfOrder(1),
    "HalfOrder(4)": lambda: HalfOrder(4),
    "HalfOrderRLR(1), all segments": lambda: HalfOrderRLR(1, None),
    "HalfOrderRLR(1), all, look-ahead": lambda: HalfOrderRLR(1, None, control=LookAhead()),
    "HalfOrderRLR(4), all, look-ahead": lambda: HalfOrderRLR(4, None, control=LookAhead()),
    "HalfOrderRLR(4), one segment": lambda: HalfOrderRLR(4),
    "HalfOrderRLR(4), one, look-ahead": lambda: HalfOrderRLR(4, control=LookAhead()),
    "RLR(4)": lambda: RLR(4),
    "RLR(4), without zeroth order": lambda: RLR(4, zeroth=False),
    "ZerothOrder, two-point": ZerothOrder,
    "ZerothOrder, one-point": lambda: ZerothOrder(antithetic=False),
}


@dataclass(frozen=True)
class Row:
    """What was measured of one estimator."""

    name: str
    share: float
    error: float
    bias: float
    least: float
    most: float
    variance: float
    cosine: float


def gradient(estimator: Estimator, chain: Chain, batch: int, seed: int) -> Tensor:
    r"""Returns one estimate :math:`\hat g` from a roll-out of ``batch`` samples, flat."""
    noises = torch.randn(
        chain.steps + 1, batch, *chain.model.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    weights = list(chain.model.trainable.values())
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    trajectory = estimator.rollout(chain, [""] * batch, noises, seed)
    for term in estimator.losses(chain, trajectory, reward):
        term.loss.backward()
    return torch.cat([-weight.grad.flatten() for weight in weights if weight.grad is not None])


def reference(chain: Chain, draws: int, batch: int = 2000) -> Tensor:
    r"""Returns :math:`g`, the mean of ``draws`` gradients of ``batch`` samples each."""
    full = FirstOrder(AllSteps())
    return torch.stack([gradient(full, chain, batch, spawn(1, k)) for k in range(draws)]).mean(0)


def squared_bias(deviations: Tensor) -> tuple[Tensor, Tensor]:
    r"""Returns an unbiased estimate of :math:`|E d|^2` from draws :math:`d_i`, and its standard error.

    It is the mean of :math:`d_i \cdot d_j` over :math:`i \neq j`, whose variance is
    :math:`4 \, \mathrm{Var}(d_i \cdot E d) / n + 2 \, \mathrm{tr}(\Sigma^2) / n^2` (Hoeffding, 1948).
    """
    n, mean = len(deviations), deviations.mean(0)
    estimate = (n * mean.square().sum() - deviations.square().sum() / n) / (n - 1)
    products = (deviations - mean) @ (deviations - mean).T
    # the products with themselves measure the trace of Σ, not of its square
    spread = (products.square().sum() - products.diagonal().square().sum()) / (n * (n - 1))
    return estimate, (4 * (deviations @ mean).var() / n + 2 * spread / n**2).sqrt()


def row(name: str, draws: Tensor, g: Tensor) -> Row:
    r"""Returns the row of draws :math:`\hat g`, with shape :math:`(n, d)`."""
    norm, n = g.square().sum(), len(draws)
    shares = draws @ g / norm
    square, error = squared_bias(draws - g)
    bias = (torch.stack([square, square - 2 * error, square + 2 * error]) / norm).clamp_min(0).sqrt()
    variance = draws.var(0).sum()
    cosine = (draws @ g / (draws.norm(dim=1) * norm.sqrt())).mean()
    values = (shares.mean(), shares.std() / n**0.5, *bias, variance / norm, cosine)
    return Row(name, *(float(value) for value in values))


def table(rows: Sequence[Row]) -> str:
    """Returns the rows in Markdown."""
    lines = ["| estimator | share of g | bias / ‖g‖ | variance / ‖g‖² | cosine |", "|---|--:|--:|--:|--:|"]
    for r in rows:
        bias = f"{r.bias:.2f} ({r.least:.2f} … {r.most:.2f})"
        lines.append(f"| {r.name} | {r.share:.2f} ± {r.error:.2f} | {bias} | {r.variance:.3g} | {r.cosine:.3f} |")
    return "\n".join(lines)


def measure(options: Namespace) -> list[Row]:
    """Measures the chosen estimators."""
    chain = Chain(trained(), DDIM(options.steps))
    g = reference(chain, options.reference)
    rows = []
    for name, make in CASES.items():
        if options.only and not any(part in name for part in options.only):
            continue
        estimates = [gradient(make(), chain, options.batch, spawn(options.seed, 2, k)) for k in range(options.draws)]
        rows.append(row(name, torch.stack(estimates), g))
    return rows


def main(args: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints the table and writes the numbers."""
    parser = ArgumentParser("python -m benchmarks.variance", description="Bias and variance of every estimator.")
    parser.add_argument("--steps", type=int, default=20, help="length T of the chain (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="samples of one estimate (%(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="estimates of each estimator (%(default)s)")
    parser.add_argument("--reference", type=int, default=200, help="gradients of 2,000 samples behind g (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="parts of the names of the estimators to measure")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/variance.json"))
    options = parser.parse_args(args)
    rows = measure(options)
    told = {name: value for name, value in vars(options).items() if name not in ("out", "only")}
    where = {"device": facts.device(torch.device("cpu")), "date": facts.now(), "commit": facts.commit()}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    result = {"options": told, **where, "rows": [asdict(r) for r in rows], "versions": facts.versions()}
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    sys.stdout.write(f"{table(rows)}\n\n{told}, {where['device']}, {where['date']}\n")


if __name__ == "__main__":
    main()
