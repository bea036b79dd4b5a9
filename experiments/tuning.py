"""The learning rate of each method: as many tries for one as for another, on prompts of their own."""

from collections.abc import Callable, Sequence

from experiments.base import Cell, Experiment, Figure, Row, Table
from experiments.methods import RLR, TINY_METHODS, TINY_TARGETS, Method, ablations
from experiments.results import Results
from experiments.scales import Scale
from experiments.summary import best, grouped, mean_of, numbers
from experiments.training import Training

RATES = ("3.0e-4", "1.0e-3", "3.0e-3")
SAMPLES = 640
"""Samples of a try."""
SEED = 100
"""Of training; no other experiment has it."""
TARGET = TINY_TARGETS[0]
LR = "model.init_args.lr"

Choice = Callable[[Method], Method]
"""Gives a method its learning rate."""


class Tuning(Experiment):
    """The reward on validation prompts for each method and learning rate."""

    name = "tuning"
    title = "The learning rate of each method"
    note = (
        f"{TARGET.name} on 64 validation prompts × 2 samples after {SAMPLES} training samples, one run of seed {SEED} a try. "
        f"Every method has {len(RATES)} tries. Other experiments read the best of each from here, for other rewards, too, and "
        "evaluate on other prompts and seeds. The half-order RLR's weight of 0.01 and its two steps of first order were chosen "
        "before, in about a dozen tries (README.md), which the others did not have."
    )

    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        if scale.gpu:
            raise ValueError("learning rates are tuned for the set tiny alone; the configs of the others say theirs")
        return [self._cell(scale, method, rate) for rate in RATES for method in (*TINY_METHODS, *ablations(RLR))]

    def _cell(self, scale: Scale, method: Method, rate: str) -> Cell:
        tried = method.towards(TARGET).but(f"{LR}={rate}")
        run = Training(tried, "experiments/configs/tiny_validation.yaml", SEED, (method.updates(SAMPLES),))
        return run.cell(scale, self.name, {"method": method.name, "lr": rate})

    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        final = [row for row in rows if row["samples"] == SAMPLES]
        lines = [
            (str(method), *(mean_of(_at(group, rate), f"{TARGET.label} gain") for rate in RATES))
            for (method,), group in grouped(final, "method").items()
        ]
        return [Table(f"Gain in {TARGET.name}", ("method", *(f"lr {float(rate):g}" for rate in RATES)), lines)]


def _at(rows: Sequence[Row], rate: str) -> list[Row]:
    return [row for row in rows if row["lr"] == rate]


def tuned(name: str | None = None) -> Callable[[Scale], Choice]:
    """Returns what gives each method the best rate of its own or, of another method's, by its name."""
    return lambda scale: _choice(scale, name)


def _choice(scale: Scale, name: str | None) -> Choice:
    cells = Tuning().cells(scale, ())
    rows = [row for row in Results.of(scale, Tuning.name).rows(cells) if row["samples"] == SAMPLES]
    tries = {method: group for (method,), group in grouped(rows, "method").items()}

    def choose(method: Method) -> Method:
        found = tries.get(name or method.name, [])
        if len(found) < len(RATES):
            raise ValueError(
                f"the learning rate of {name or method.name} is not tuned; run `python experiments/run.py tuning --set "
                f"{scale.name}` first"
            )
        (rate,) = best(found, lambda group: numbers(group, TARGET.label)[0], "lr")
        return method.but(f"{LR}={rate}")

    return choose


def configured(scale: Scale) -> Choice:
    """Returns what leaves each method the rate of its config."""
    return lambda method: method
