"""The learning rate of each method: the same number of tries for each method, on separate prompts."""

from collections.abc import Callable, Sequence
from typing import ClassVar

from experiments.base import Cell, Experiment, Figure, Row, Table
from experiments.command import Command
from experiments.methods import RATES, RLR, TINY_METHODS, TINY_TARGETS, Method, Target, ablations
from experiments.results import Results
from experiments.scales import Scale
from experiments.summary import best, grouped, mean_of, numbers
from experiments.training import Training

SAMPLES = 640
"""The samples of a try."""
SEED = 100
"""The training seed, which no other experiment uses."""
TARGET = TINY_TARGETS[0]

Choice = Callable[[Method], Method]
"""Returns a method with its learning rate."""


class Tuning(Experiment):
    """The reward on validation prompts for each method and learning rate."""

    name = "tuning"
    title = "The learning rate of each method"
    note = (
        f"{TARGET.name} on 64 validation prompts × 2 samples after {SAMPLES} training samples, one run of seed {SEED} a try. "
        f"Every method has {len(RATES)} tries. Other experiments use the best learning rate of each method from here, for other "
        "rewards as well, and evaluate on other prompts and seeds. The weight 0.01 of half-order RLR and its two steps of "
        "first order were chosen earlier, in about a dozen tries (README.md); no other method had such tries."
    )

    target: ClassVar[Target] = TARGET
    methods: ClassVar[Sequence[Method]] = (*TINY_METHODS, *ablations(RLR))
    samples: ClassVar[int] = SAMPLES
    layer: ClassVar[str] = "experiments/configs/tiny_validation.yaml"

    def cells(self, scale: Scale, seeds: Sequence[int]) -> Sequence[Cell]:
        if scale.gpu:
            raise ValueError("learning rates are tuned for the set tiny alone; other sets have them in their configs")
        tries = zip(*(method.rates for method in self.methods), strict=True)
        return [self._cell(scale, *pair) for rates in tries for pair in zip(self.methods, rates, strict=True)]

    def _cell(self, scale: Scale, method: Method, rate: str) -> Cell:
        tried = method.towards(self.target).but(f"{method.rate}={rate}")
        return self.run(tried).cell(scale, self.name, {"method": method.name, "lr": rate})

    def run(self, method: Method) -> Command:
        """Returns the run of a try."""
        return Training(method, self.layer, SEED, (method.updates(self.samples),))

    def show(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        kinds = dict.fromkeys((method.rate, method.rates) for method in self.methods)
        return [self._table(rate, rates, ended(rows)) for rate, rates in kinds]

    def _table(self, rate: str, rates: Sequence[str], rows: Sequence[Row]) -> Table:
        alike = {method.name for method in self.methods if (method.rate, method.rates) == (rate, rates)}
        lines = [
            (str(method), *(mean_of(_at(group, tried), f"{self.target.label} gain") for tried in rates))
            for (method,), group in grouped(rows, "method").items()
            if method in alike
        ]
        word = rate.rpartition(".")[2]
        head = ("method", *(f"{word} {float(tried):g}" for tried in rates))
        return Table(f"Gain in {self.target.name} by {word}", head, lines)


def ended(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows after training."""
    return [row for row in rows if row.get("update") != 0]


def _at(rows: Sequence[Row], rate: str) -> list[Row]:
    return [row for row in rows if row["lr"] == rate]


def tuned(name: str | None = None, tuning: type[Tuning] = Tuning) -> Callable[[Scale], Choice]:
    """Returns a function that sets the best learning rate of each method, or of the method with a given name."""
    return lambda scale: _choice(scale, name, tuning())


def _choice(scale: Scale, name: str | None, tuning: Tuning) -> Choice:
    rows = ended(Results.of(scale, tuning.name).rows(tuning.cells(scale, ())))
    tries = {method: group for (method,), group in grouped(rows, "method").items()}

    def choose(method: Method) -> Method:
        found = tries.get(name or method.name, [])
        if len(found) < len(method.rates):
            raise ValueError(
                f"the learning rate of {name or method.name} is not tuned; run `python experiments/run.py {tuning.name} "
                f"--set {scale.name}` first"
            )
        (rate,) = best(found, lambda group: numbers(group, tuning.target.label)[0], "lr")
        return method.but(f"{method.rate}={rate}")

    return choose


def configured(scale: Scale) -> Choice:
    """Returns a function that keeps the learning rate of the config."""
    return lambda method: method
