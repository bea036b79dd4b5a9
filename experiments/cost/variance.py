r"""Bias and variance of every estimator on a model of points: ``python -m experiments.cost.variance``.

The reference :math:`g` is the mean of many gradients of full backpropagation on a model of points in :math:`R^8`
(:mod:`experiments.cost.points`). :mod:`rlr.analysis.accuracy` defines what is measured of each estimator, and the estimators are in
:mod:`experiments.cost.estimators`.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from experiments.cost.estimators import ENTRIES
from experiments.cost.points import reward, trained
from rlr.analysis.accuracy import Accuracy, Reference, accuracy, draw_reference
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.evaluation import provenance
from rlr.io.json_file import write_json
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn


@dataclass(frozen=True)
class Row(Accuracy):
    """The measurements of one estimator."""

    name: str


def problem(chain: Chain, batch: int) -> Problem:
    """Returns the gradient that is estimated from so many samples."""
    return Problem(chain, unconditional(reward), [""] * batch)


def reference(chain: Chain, draws: int, batch: int = 2000) -> Reference:
    r"""Returns :math:`g` and :math:`g_{>h}`, means of ``draws`` gradients of ``batch`` samples each."""
    full, early = draw_reference(problem(chain, batch), [spawn(1, Stream.REFERENCE, k) for k in range(draws)])
    return Reference.exact(full.mean(0), early.mean(0))


def table(rows: Sequence[Row]) -> str:
    """Returns the rows in Markdown."""
    lines = [
        "| estimator | share of g | bias / ‖g‖ | variance / ‖g‖² | cosine | deep cosine |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for r in rows:
        bias = f"{r.bias:.2f} ({r.least:.2f} … {r.most:.2f})"
        cosines = f"{r.cosine:.3f} | {r.deep_cosine:.3f}"
        lines.append(f"| {r.name} | {r.share:.2f} ± {r.share_error:.2f} | {bias} | {r.variance:.3g} | {cosines} |")
    return "\n".join(lines)


def measure(options: Namespace) -> list[Row]:
    """Measures the chosen estimators, each on the chain of its eta."""
    model = trained()

    @cache
    def known(eta: float) -> tuple[Reference, Problem]:
        chain = Chain(model, DDIM(options.steps, eta))
        return reference(chain, options.reference), problem(chain, options.batch)

    rows = []
    for entry in ENTRIES:
        if options.only and not any(part in entry.name for part in options.only):
            continue
        g, small = known(entry.eta)
        seeds = [spawn(options.seed, Stream.EXPERIMENT, k) for k in range(options.draws)]
        draws = torch.stack([small.gradient(entry.make(options.steps), seed) for seed in seeds])
        rows.append(Row(name=entry.name, **asdict(accuracy(entry.scale(small) * draws, g))))
    return rows


def main(args: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints the table and writes the numbers."""
    parser = ArgumentParser("python -m experiments.cost.variance", description="Bias and variance of every estimator.")
    parser.add_argument("--steps", type=int, default=20, help="length T of the chain (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="samples of one estimate (%(default)s)")
    parser.add_argument("--draws", type=int, default=1000, help="estimates of each estimator (%(default)s)")
    parser.add_argument("--reference", type=int, default=200, help="gradients of 2,000 samples behind g (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="parts of the names of the estimators to measure")
    parser.add_argument("--out", type=Path, default=Path("runs/bench/variance.json"))
    options = parser.parse_args(args)
    rows = measure(options)
    chosen = {name: value for name, value in vars(options).items() if name not in ("out", "only")}
    where = {"device": provenance.device(torch.device("cpu")), "date": provenance.now(), "commit": provenance.commit()}
    result = {"options": chosen, **where, "rows": [asdict(r) for r in rows], "versions": provenance.versions()}
    write_json(options.out, result)
    sys.stdout.write(f"{table(rows)}\n\n{chosen}, {where['device']}, {where['date']}\n")


if __name__ == "__main__":
    main()
