r"""The cost of one update, by estimator: ``make bench``, ``make bench SHAPE=sd14 ARGS="--dtype bfloat16"``.

An update is a rollout, the backward of every term and a step of AdamW on LoRA weights, with guidance. *Overhead* is its
time over that of the passes it cannot do without (:mod:`experiments.cost.cases`), each timed by itself on the same machine.
"""

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import diffusers
import torch
import transformers

from experiments.cost.cases import CASES, SEED, Case, Needs
from experiments.cost.shapes import SHAPES
from rlr.analysis.measure import Passes, counted, peak_bytes, seconds
from rlr.chain import Chain
from rlr.evaluation import provenance
from rlr.io.json_file import write_json
from rlr.models import Guidance
from rlr.objective import Objective
from rlr.rewards import Brightness
from rlr.rewards.base import Reward


@dataclass(frozen=True)
class Row:
    """The measurements of one estimator."""

    name: str
    seconds: float
    forward: float
    backward: float
    least_forward: int
    least_backward: int
    overhead: float
    peak_mib: float


@dataclass(frozen=True)
class Units:
    """Seconds of the parts that every update is made of."""

    plain: float
    graph: float
    scored: float
    differentiated: float

    def of(self, needs: Needs) -> float:
        """Returns the seconds of the least work."""
        return sum(getattr(self, name) * count for name, count in vars(needs).items())


class Bench:
    """A chain with an objective and everything that an update takes."""

    def __init__(self, chain: Chain, batch: int, repeats: int, reward: Reward | None = None) -> None:
        self.chain, self.batch, self.repeats = chain, batch, repeats
        self.device = chain.model.device
        self.prompts = ["a red circle left of a blue square"] * batch
        self.noises = chain.draw(range(batch))
        self.optimizer = torch.optim.AdamW(chain.model.trainable.values(), 1e-6)
        self.objective = Objective(chain.model, reward or Brightness()).of_frames()

    def update(self, case: Case) -> None:
        """Does one update."""
        estimator = case.estimator(self.chain)
        rollout = estimator.rollout(self.chain, self.prompts, self.noises, self.objective, SEED)
        for term in estimator.terms(rollout):
            term.backward()
            del term
        self.optimizer.step()
        self.optimizer.zero_grad()

    def units(self) -> Units:
        """Times the parts."""
        x, condition = self.noises[0], self.chain.model.encode(self.prompts)

        def plain() -> None:
            with torch.no_grad():
                self.chain.transition(x, self.chain.steps, condition)

        def graph() -> None:
            inside = x.clone().requires_grad_()
            self.chain.transition(inside, self.chain.steps, condition).mean.sum().backward()

        def differentiated() -> None:
            self.objective(x.clone().requires_grad_(), self.prompts).objective.sum().backward()

        def scored() -> None:
            with torch.no_grad():
                self.objective(x, self.prompts)

        parts = (plain, graph, scored, differentiated)
        times = [seconds(part, 2 * self.repeats + 1, self.device) for part in parts]
        self.optimizer.zero_grad()
        return Units(*times)

    def row(self, case: Case, units: Units) -> Row:
        """Measures one estimator."""
        case.make().check(self.chain)
        with counted(self.chain, self.batch) as passes:
            self.update(case)
        needs = case.needs(self.chain.steps)
        spent = seconds(lambda: self.update(case), self.repeats, self.device)
        peak = peak_bytes(lambda: self.update(case), self.device) / 2**20
        return _row(case, passes, needs, spent, spent / units.of(needs), peak)


def _row(case: Case, passes: Passes, needs: Needs, spent: float, overhead: float, peak: float) -> Row:
    least = needs.plain + needs.graph
    return Row(case.name, spent, passes.forward, passes.backward, least, needs.graph, overhead, peak)


def table(rows: Sequence[Row]) -> str:
    """Returns the rows as a Markdown table."""
    lines = [
        "| estimator | s / update | forward (least) | backward (least) | time over least | peak MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *map(line, rows)])


def line(row: Row) -> str:
    """Returns one row of the table."""
    forward, backward = (f"{n:g} ({m})" for n, m in zip(*_counts(row), strict=True))
    return f"| {row.name} | {row.seconds:.3g} | {forward} | {backward} | {row.overhead:.2f} | {row.peak_mib:.0f} |"


def _counts(row: Row) -> tuple[tuple[float, float], tuple[int, int]]:
    return (row.forward, row.backward), (row.least_forward, row.least_backward)


def options(args: Sequence[str] | None) -> Namespace:
    """Returns the options, with the shape's own defaults where none were given."""
    parser = ArgumentParser("python -m experiments.cost.step", description="Time and memory of an update by estimator.")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="tiny", help="size of the networks (%(default)s)")
    parser.add_argument("--batch", type=int, help="samples of an update (by default that of the shape)")
    parser.add_argument("--steps", type=int, help="steps of the chain (by default that of the shape)")
    parser.add_argument("--dtype", help="type of the frozen weights (by default that of the shape)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="(%(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="updates timed; the median counts (%(default)s)")
    parser.add_argument("--only", nargs="*", help="only estimators with one of these in their name")
    parser.add_argument("--checkpoint", action="store_true", help="replayed steps keep their input only")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of the JSON file (%(default)s)")
    found = parser.parse_args(args)
    for name in ("batch", "steps", "dtype"):
        if getattr(found, name) is None:
            setattr(found, name, getattr(SHAPES[found.shape], name))
    return found


def build(given: Namespace) -> Chain:
    """Returns the chain to be timed: random weights, a LoRA, guidance."""
    shape = SHAPES[given.shape]
    with tempfile.TemporaryDirectory() as folder:
        model = shape.model(str(shape.write(Path(folder), getattr(torch, given.dtype))), given.dtype)
    chain = Chain(Guidance(model, shape.guidance), shape.sampler(given.steps), given.checkpoint)
    return chain.to(given.device).eval()


def say(text: str) -> None:
    """Writes a line."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(args: Sequence[str] | None = None) -> None:
    """Measures every estimator, writes the table and a JSON file."""
    given = options(args)
    # the libraries report on loading random weights at length
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    bench = Bench(build(given), given.batch, given.repeats, SHAPES[given.shape].reward())
    where = provenance.device(bench.device)
    say(f"{given.shape}, T = {given.steps}, batch {given.batch}, {given.dtype}, {where}, {provenance.now()}\n")
    say(table([]))
    units, rows = bench.units(), []
    for case in CASES:
        if not given.only or any(part in case.name for part in given.only):
            rows.append(bench.row(case, units))
            say(line(rows[-1]))
    result = {
        **{name: str(value) for name, value in vars(given).items()},
        "device name": where,
        "date": provenance.now(),
        "commit": provenance.commit(),
        "versions": provenance.versions(),
        "units": asdict(units),
        "rows": [asdict(row) for row in rows],
    }
    path = given.out / f"step_{given.shape}.json"
    write_json(path, result)
    say(f"\n{path}")


if __name__ == "__main__":
    main()
