r"""The variance of zeroth order by kinds of directions: ``python -m experiments.cost.directions``.

On the model of points (:mod:`experiments.cost.points`) a two-point difference with a small shift is the product of the direction
with the gradient of the same samples, :math:`(R_+ - R_-) / 2 s = \varepsilon \cdot g_i`. Full backpropagation gives :math:`g_i`
for each sample once, and every kind of directions then costs products only. The differences in :math:`s` are left out.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from experiments.cost.points import reward, trained
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.estimators import AllSteps, Estimator, FirstOrder
from rlr.evaluation import provenance
from rlr.io.json_file import write_json
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from rlr.seeding import Stream, spawn

Directions = Callable[[Tensor, int, torch.Generator], Tensor]
r"""An estimate from the gradients of the samples, with shape :math:`(B, d)`, and :math:`n` directions."""


def normals(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws standard normals in float64."""
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def independent(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
    r"""Returns :math:`\frac{1}{n} \sum_k (\varepsilon_k \cdot \bar g) \, \varepsilon_k`."""
    e = normals((n, g.shape[1]), generator)
    return (e @ g.mean(0)) @ e / n


def per_sample(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
    r"""Returns :math:`\frac{1}{n B} \sum_{k, i} (\varepsilon_{ki} \cdot g_i) \, \varepsilon_{ki}`."""
    return torch.stack([_each(g, normals(tuple(g.shape), generator)) for _ in range(n)]).mean(0)


def _each(g: Tensor, e: Tensor) -> Tensor:
    return (e * g).sum(1) @ e / len(g)


def orthogonal(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
    r"""Returns :math:`\frac{d}{n} Q Q^\top \bar g` for a Haar-random :math:`Q` with :math:`n` orthonormal columns."""
    q = basis(g.shape[1], n, generator)
    return g.shape[1] / n * q @ (q.T @ g.mean(0))


def basis(d: int, n: int, generator: torch.Generator) -> Tensor:
    r"""Returns :math:`n` random orthonormal columns, with shape :math:`(d, n)`."""
    return torch.linalg.qr(normals((d, n), generator)).Q


def scaled(scale: Tensor) -> Directions:
    r"""Returns directions :math:`D u`: the estimate is :math:`\frac{1}{n} \sum_k (u_k \cdot D \bar g) \, D^{-1} u_k`."""

    def estimate(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return independent(scale * g, n, generator) / scale

    return estimate


def masked(mask: Tensor) -> Directions:
    """Returns directions in some of the weights; the gradients of the others are 0, which is a bias."""
    chosen = mask.nonzero().squeeze(1)

    def estimate(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
        return torch.zeros_like(g[0]).index_put((chosen,), independent(g[:, chosen], n, generator))

    return estimate


def guided(guide: Tensor) -> Directions:
    r"""Returns one direction along a guide :math:`u`, and :math:`n - 1` random ones orthogonal to it; unbiased for all :math:`u`.

    .. math:: \hat g = (u \cdot \bar g) \, u + P \, \frac{1}{n - 1} \sum_k (\varepsilon_k \cdot P \bar g) \, \varepsilon_k,
        \qquad P = I - u u^\top
    """
    u = guide / guide.norm()

    def estimate(g: Tensor, n: int, generator: torch.Generator) -> Tensor:
        along = (g.mean(0) @ u) * u
        rest = independent(g - (g @ u).outer(u), n - 1, generator)
        return along + rest - (rest @ u) * u

    return estimate


class Own:
    """Guided by the running mean of the estimates themselves, all that a reward without gradient leaves."""

    def __init__(self, decay: float = 0.99) -> None:
        self.decay = decay
        self.means: dict[int, Tensor] = {}

    def __call__(self, g: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Returns an estimate, and learns from it."""
        mean = self.means.get(n)
        estimate = (independent if mean is None else guided(mean))(g, n, generator)
        self.means[n] = estimate if mean is None else self.decay * mean + (1 - self.decay) * estimate
        return estimate


def gradients(chain: Chain, count: int, seed: int, estimator: Estimator, kind: type[Problem] = Problem) -> Tensor:
    r"""Returns the gradient of each of so many samples, with shape :math:`(n, d)`.

    Of a linear layer it is the gradient of the output times the input, summed over the steps.
    """
    weights = chain.model.trainable
    each = {name: torch.zeros(count, *w.shape, dtype=w.dtype) for name, w in weights.items()}
    handles = [
        layer.register_forward_hook(_recorder(each[f"{name}.weight"], each[f"{name}.bias"]))
        for name, layer in chain.model.named_modules()
        if isinstance(layer, nn.Linear)
    ]
    kind(chain, unconditional(reward), [""] * count).gradient(estimator, seed)
    for handle in handles:
        handle.remove()
    # the loss is minus the mean of the rewards
    return -count * torch.cat([g.flatten(1) for g in each.values()], 1)


def _recorder(weight: Tensor, bias: Tensor) -> Callable[..., None]:
    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0].detach()

        def add(gradient: Tensor) -> None:
            weight.add_(torch.einsum("bo,bi->boi", gradient, x))
            bias.add_(gradient)

        if output.requires_grad:
            output.register_hook(add)

    return record


def kinds(chain: Chain, g: Tensor, guide: Tensor) -> dict[str, Directions]:
    """Returns the kinds of directions; those that depend on the gradient know it exactly, which no run does."""
    weights = list(chain.model.trainable.values())
    parts = g.split([w.numel() for w in weights])
    balance = torch.cat([(len(p) / p.square().sum()).pow(0.25).expand_as(p) for p in parts])
    quarter = g.abs().sort(descending=True).values[len(g) // 4]
    small = torch.cat([torch.full_like(p, len(p) < max(map(len, parts)), dtype=torch.bool) for p in parts])
    return {
        "independent, one for the batch": independent,
        "independent, one a sample": per_sample,
        "orthogonal, one for the batch": orthogonal,
        "scaled by layer (exact norms)": scaled(balance),
        "scaled by weight (exact sizes)": scaled(g.abs().clamp_min(1e-3 * g.abs().mean()).rsqrt()),
        "all layers but the largest (biased)": masked(small),
        "the quarter of the weights with the largest gradients (biased)": masked(g.abs() >= quarter),
        "guided by the mean of first order on step 1": guided(guide),
        "guided by the running mean of its own estimates": Own(),
    }


def measure(options: Namespace) -> list[dict[str, object]]:
    """Measures every kind with every number of directions."""
    chain = Chain(trained(), DDIM(options.steps, 1.0))
    shape, seed = (options.draws, options.batch, -1), spawn(options.seed, Stream.EXPERIMENT, 0)
    each, late = (
        gradients(chain, options.draws * options.batch, seed, estimator).view(shape)
        for estimator in (FirstOrder(AllSteps()), FirstOrder(1))
    )
    g, first = each.mean((0, 1)), late.mean((0, 1))
    rows = []
    for target, samples, goal in (("all steps", each, g), ("all but step 1", each - late, g - first)):
        for name, estimate in kinds(chain, goal, first).items():
            for n in options.directions:
                generator = torch.Generator().manual_seed(spawn(options.seed, Stream.DIRECTION, n))
                found = torch.stack([estimate(s, n, generator) for _ in range(options.repeats) for s in samples])
                rows.append({"target": target, "name": name, "directions": n, **_accuracy(found, goal)})
    return rows


def _accuracy(found: Tensor, g: Tensor) -> dict[str, float]:
    error = (found - g).square().sum(1) / g.square().sum()
    cosine = torch.nn.functional.cosine_similarity(found, g.expand_as(found), dim=1)
    return {
        "error": error.mean().item(),
        "standard_error": (error.std() / len(error) ** 0.5).item(),
        "cosine": cosine.mean().item(),
        "share": (found @ g).mean().item() / g.square().sum().item(),
    }


def table(rows: Sequence[dict[str, object]], counts: Sequence[int]) -> str:
    """Returns the squared errors, and the cosine with most directions, in Markdown."""
    head = " | ".join(f"n = {n}" for n in counts)
    lines = [f"| steps | directions | {head} | cosine, n = {counts[-1]} |", "|---|---|" + "--:|" * (len(counts) + 1)]
    for k in range(0, len(rows), len(counts)):
        some = rows[k : k + len(counts)]
        errors = " | ".join(f"{r['error']:.3g} ± {r['standard_error']:.2g}" for r in some)
        lines.append(f"| {some[0]['target']} | {some[0]['name']} | {errors} | {some[-1]['cosine']:.3f} |")
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Reads the command line, measures, prints the table and writes the numbers."""
    parser = ArgumentParser("python -m experiments.cost.directions", description="Zeroth order by kinds of directions.")
    parser.add_argument("--steps", type=int, default=20, help="length T of the chain (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="samples of one estimate (%(default)s)")
    parser.add_argument("--draws", type=int, default=100, help="batches (%(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="estimates from each batch (%(default)s)")
    parser.add_argument("--directions", type=int, nargs="+", default=[2, 8, 32])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/bench/directions.json"))
    options = parser.parse_args(args)
    torch.set_num_threads(1)
    rows = measure(options)
    where = {"device": provenance.device(torch.device("cpu")), "date": provenance.now(), "commit": provenance.commit()}
    chosen = {name: value for name, value in vars(options).items() if name != "out"}
    write_json(options.out, {"options": chosen, **where, "rows": rows})
    sys.stdout.write(f"{table(rows, options.directions)}\n\n{chosen}, {where['device']}, {where['date']}\n")


if __name__ == "__main__":
    main()
