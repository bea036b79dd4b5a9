"""The learning rates of the methods of a comparison."""

from collections.abc import Callable

from experiments.board.finals import BoardFinalsA
from experiments.board.tuning import BoardTuningA
from experiments.methods import Method
from experiments.settings import Setting

RateSelection = Callable[[Method], Method]
"""Returns a method with its learning rate."""


def configured(setting: Setting) -> RateSelection:
    """Returns a function that keeps the learning rate of the config."""
    return lambda method: method


def of_the_board(name: str) -> Callable[[Setting], RateSelection]:
    """Returns a function that sets the selected learning rate of a method of track A of the board.

    Args:
        name: The name of the method on the board.
    """

    def select(setting: Setting) -> RateSelection:
        rate = BoardFinalsA().selected(setting).get(name)
        if rate is None:
            raise ValueError(
                f"the learning rate of {name} is not tuned; run `python -m experiments.board.queue {BoardTuningA.name} "
                f"{BoardFinalsA.name}` first"
            )
        return lambda method: method.with_overrides(f"{method.rate}={rate}")

    return select
