r"""What the states and noises of a rollout take, and what bfloat16 changes: ``python -m experiments.cost.trajectories``.

Bytes follow from shapes alone. The gradient of the rounded chain is compared with that of the chain on the same noises, on the
linear-Gaussian chain with a quadratic reward in float64: the mean of the difference, relative to the exact gradient, with its
standard error.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from rlr.analysis.linear import Affine, exact_gradients, linear_chain, quadratic
from rlr.analysis.problem import Problem
from rlr.chain import Chain
from rlr.estimators import AllSteps, FirstOrder, HalfOrder, HalfOrderRLR
from rlr.estimators.base import Estimator
from rlr.evaluation import provenance
from rlr.rollout import unconditional
from rlr.samplers import DDIM
from rlr.storage import Storage, StoredLatents

SHAPES = {
    "Stable Diffusion 1.4, 512 x 512": (4, 64, 64),
    "Wan 2.1 1.3B, 81 frames of 480 x 832": (16, 21, 60, 104),
}
"""The shapes of latents, by model and size of the sample."""
STORAGES = {
    "as computed": Storage(),
    "on_cpu": Storage(on_cpu=True),
    "bfloat16": Storage(bfloat16=True),
    "both": Storage(on_cpu=True, bfloat16=True),
}
ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "FirstOrder(all)": lambda: FirstOrder(AllSteps()),
    "HalfOrder(1)": lambda: HalfOrder(1),
    "HalfOrderRLR(2), all segments": lambda: HalfOrderRLR(2, None),
}


def kept_bytes(storage: Storage, steps: int, latent: Sequence[int]) -> tuple[int, int]:
    """Returns the bytes of a sample on the device and in the CPU's memory, of tensors without content."""
    found = {"cuda": 0, "cpu": 0}
    with FakeTensorMode():
        for _ in ("states", "noises"):
            room = storage.room((steps + 1, 1, *latent), torch.float32, torch.device("cuda"))
            for part in (room.last, room.rest) if isinstance(room, StoredLatents) else (room,):
                found[part.device.type] += part.numel() * part.element_size()
    return found["cuda"], found["cpu"]


def difference(make: Callable[[], Estimator], steps: int, batches: int, batch: int) -> tuple[Tensor, Tensor]:
    """Returns the mean difference of the gradient of the rounded chain, and its standard error, over the norm of the gradient."""
    exact = exact_gradients(linear_chain(steps)).sum(0)
    rounded, plain = (
        Problem(Chain(Affine(), DDIM(steps, eta=1.0), storage=storage), unconditional(quadratic), ["x"] * batch)
        for storage in (Storage(bfloat16=True), Storage())
    )
    seeds = range(batches)
    differences = (rounded.gradients(make(), seeds) - plain.gradients(make(), seeds)) / exact.norm()
    return differences.mean(0).norm(), (differences.var(0).sum() / batches).sqrt()


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options."""
    parser = ArgumentParser("python -m experiments.cost.trajectories", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=50, help="steps of the chain of which bytes are stated (%(default)s)"
    )
    parser.add_argument("--linear_steps", type=int, default=20, help="steps of the linear chain (%(default)s)")
    parser.add_argument("--batches", type=int, default=100, help="batches whose gradients are compared (%(default)s)")
    parser.add_argument("--batch", type=int, default=1024, help="samples of a batch (%(default)s)")
    return parser.parse_args(args)


def main(args: Sequence[str] | None = None) -> None:
    """Prints both tables."""
    given = options(args)
    out = sys.stdout
    out.write(f"T = {given.steps}, MiB a sample on the device + in the CPU's memory, computed from shapes\n\n")
    out.write(f"| latent | {' | '.join(STORAGES)} |\n|---|{'--:|' * len(STORAGES)}\n")
    for name, latent in SHAPES.items():
        cells = [kept_bytes(storage, given.steps, latent) for storage in STORAGES.values()]
        out.write(f"| {name} | {' | '.join(f'{a / 2**20:.1f} + {b / 2**20:.1f}' for a, b in cells)} |\n")
    out.write(
        f"\nlinear chain, T = {given.linear_steps}, {given.batches} batches of {given.batch}, "
        f"{provenance.device(torch.device('cpu'))}, {provenance.now()}\n\n"
        "| estimator | difference of the mean gradient / norm of the gradient | standard error |\n|---|--:|--:|\n"
    )
    for name, make in ESTIMATORS.items():
        mean, error = difference(make, given.linear_steps, given.batches, given.batch)
        out.write(f"| `{name}` | {mean:.1e} | {error:.1e} |\n")
        out.flush()


if __name__ == "__main__":
    main()
