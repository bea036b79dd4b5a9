"""The learning rate of each method on videos, for Table 3: the same number of tries for each method, on separate prompts."""

from collections.abc import Sequence

from experiments.base import Experiment, Figure, Row, Run, Table
from experiments.command import Command
from experiments.latents import Latents
from experiments.methods import CLIP_LATENTS, CLIP_METHODS, CLIP_TARGETS, ITERATIONS, RATES, Method
from experiments.paper.rates import RateSelection
from experiments.results import Results
from experiments.settings import Setting
from experiments.summary import best, grouped, mean_of, numbers
from experiments.training import Training

SAMPLES = 96
"""The samples of a try."""
SEED = 100
"""The training seed, which no other experiment uses."""
TARGET = CLIP_TARGETS[0]
METHODS = (*CLIP_METHODS, CLIP_LATENTS)
EVALUATION = "experiments/configs/tiny_video_validation.yaml"
LATENTS = "experiments/configs/tiny_latents_validation.yaml"


class TuningVideo(Experiment):
    """The reward of videos on validation prompts for each method and learning rate."""

    name = "tuning_video"
    title = "The learning rate of each method on videos"
    note = (
        f"{TARGET.name} of all frames on 16 validation prompts × 2 samples after {SAMPLES} training samples, one run "
        f"of seed {SEED} a try. Every method has {len(RATES)} tries. DOODL trains no weights: its tries have different largest "
        f"changes of a latent's element by one gradient, in {ITERATIONS} iterations on 4 validation prompts, compared with the "
        "same latents without iterations. The weight 0.01 of half-order RLR and its two steps of first order were chosen earlier, "
        "on images, and so were the settings of the look-ahead."
    )

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        if setting.gpu:
            raise ValueError(
                "learning rates are tuned for the setting tiny alone; other settings have them in their configs"
            )
        tries = zip(*(method.rates for method in METHODS), strict=True)
        return [self._run(setting, *pair) for rates in tries for pair in zip(METHODS, rates, strict=True)]

    def _run(self, setting: Setting, method: Method, rate: str) -> Run:
        tried = method.with_reward(TARGET).with_overrides(f"{method.rate}={rate}")
        return self._command(tried).as_run(setting, self.name, {"method": method.name, "lr": rate})

    @staticmethod
    def _command(method: Method) -> Command:
        if method.samples:
            return Training(method, EVALUATION, SEED, (method.updates(SAMPLES),))
        return Latents(method, LATENTS, SEED)

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        kinds = dict.fromkeys((method.rate, method.rates) for method in METHODS)
        return [self._table(rate, rates, ended(rows)) for rate, rates in kinds]

    @staticmethod
    def _table(rate: str, rates: Sequence[str], rows: Sequence[Row]) -> Table:
        alike = {method.name for method in METHODS if (method.rate, method.rates) == (rate, rates)}
        lines = [
            (str(method), *(mean_of(_at(group, tried), f"{TARGET.label} gain") for tried in rates))
            for (method,), group in grouped(rows, "method").items()
            if method in alike
        ]
        parameter = rate.rpartition(".")[2]
        head = ("method", *(f"{parameter} {float(tried):g}" for tried in rates))
        return Table(f"Gain in {TARGET.name} by {parameter}", head, lines)


def ended(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows after training."""
    return [row for row in rows if row.get("update") != 0]


def _at(rows: Sequence[Row], rate: str) -> list[Row]:
    return [row for row in rows if row["lr"] == rate]


def tuned(setting: Setting) -> RateSelection:
    """Returns a function that sets the best learning rate of each method."""
    rows = ended(Results.of(setting, TuningVideo.name).rows(TuningVideo().runs(setting, ())))
    tries = {method: group for (method,), group in grouped(rows, "method").items()}

    def choose(method: Method) -> Method:
        found = tries.get(method.name, [])
        if len(found) < len(method.rates):
            raise ValueError(
                f"the learning rate of {method.name} is not tuned; run `python experiments/run.py {TuningVideo.name} "
                f"--setting {setting.name}` first"
            )
        (rate,) = best(found, lambda group: numbers(group, TARGET.label)[0], "lr")
        return method.with_overrides(f"{method.rate}={rate}")

    return choose
