"""Results of the board's tuning that select a given learning rate."""

from experiments.board.finals import BoardFinals
from experiments.results import Results
from experiments.settings import Setting


def tune(setting: Setting, finals: type[BoardFinals], best: str, *names: str) -> None:
    """Adds tries of both rounds whose best value is ``best``, of the named methods or of all."""
    for experiment in (finals.first(), finals()):
        for run in experiment.runs(setting, ()):
            if not names or run.key["method"] in names:
                worth = float(run.key["value"] == best)
                Results.of(setting, experiment.name).add(run, [{"update": 80.0, finals.track.judge: worth}], {})
