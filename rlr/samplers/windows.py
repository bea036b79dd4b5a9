r"""Windows: the steps of a round's rollouts that have noise, and on which likelihood ratios train.

All other steps are deterministic. A window of :math:`w` steps with the offset :math:`o` covers the steps
:math:`T - o, \dots, T - o - w + 1`.
"""

from abc import ABC, abstractmethod

import torch


class Window(ABC):
    """A choice of consecutive steps for each round."""

    @abstractmethod
    def place(self, steps: int, rounds: int, seed: int) -> range:
        r"""Returns the steps of the window of a round, from the first to the last; steps count down.

        Args:
            steps: The number :math:`T` of steps of the chain.
            rounds: The number of rounds before it.
            seed: The seed of the round.

        Raises:
            ValueError: If the window does not fit the chain.
        """


class FixedWindow(Window):
    r"""The same steps in all rounds.

    Args:
        first: The first step :math:`T \geq t \geq 1` of the window.
        last: The last one, at most ``first``.
    """

    def __init__(self, first: int, last: int) -> None:
        if not first >= last >= 1:
            raise ValueError(
                f"FixedWindow: expected first >= last >= 1, since steps count down, got {first} and {last}"
            )
        self.first = first
        self.last = last

    def place(self, steps: int, rounds: int, seed: int) -> range:
        check_fit(self.first, steps, self, "first")
        return range(self.first, self.last - 1, -1)


class AllButLast(Window):
    r"""All steps but the last ones: the few-step chains of distilled models, whose last step is deterministic.

    Args:
        count: The number :math:`\geq 0` of last steps without noise.
    """

    def __init__(self, count: int = 1) -> None:
        if count < 0:
            raise ValueError(f"AllButLast.count: expected at least 0, got {count}")
        self.count = count

    def place(self, steps: int, rounds: int, seed: int) -> range:
        check_fit(self.count + 1, steps, self, "count")
        return range(steps, self.count, -1)


class MovingWindow(Window):
    r"""A window of :math:`w` steps whose offset depends on the round.

    Args:
        length: The number :math:`w \geq 1` of steps of the window.
    """

    def __init__(self, length: int) -> None:
        if length < 1:
            raise ValueError(f"{type(self).__name__}.length: expected at least 1, got {length}")
        self.length = length

    def place(self, steps: int, rounds: int, seed: int) -> range:
        check_fit(self.length, steps, self, "length")
        first = steps - self.offset(steps, rounds, seed)
        return range(first, first - self.length, -1)

    @abstractmethod
    def offset(self, steps: int, rounds: int, seed: int) -> int:
        r"""Returns the offset :math:`o` of a round, :math:`0 \leq o \leq T - w`; the arguments are those of :meth:`place`."""


class RandomWindow(MovingWindow):
    r"""A window drawn for each round, each offset equally likely (Flow-GRPO's fast form; ``random`` in MixGRPO).

    Args:
        length: The number of steps of the window, 1 to 3 as published.
        within: The number of first steps within which it lies; by default :math:`T / 2`, as published, rounded up. :math:`T` or
            more places it anywhere.
    """

    def __init__(self, length: int = 3, within: int | None = None) -> None:
        super().__init__(length)
        if within is not None and within < length:
            raise ValueError(f"RandomWindow.within: expected at least length={length}, got {within}")
        self.within = within

    def offset(self, steps: int, rounds: int, seed: int) -> int:
        within = min(max(self.within or (steps + 1) // 2, self.length), steps)
        generator = torch.Generator().manual_seed(seed)
        return int(torch.randint(within - self.length + 1, (), generator=generator))


class SlidingWindow(MovingWindow):
    r"""A window that moves down the chain during training, and stays at its end (``progressive`` in MixGRPO).

    References:
        | MixGRPO: Unlocking Flow-based GRPO Efficiency with Mixed ODE-SDE (Li et al., 2025)
        | https://arxiv.org/abs/2507.21802

    Args:
        length: The number of steps of the window.
        rounds: The number of rounds after which it moves.
        stride: The number of steps by which it moves.
    """

    def __init__(self, length: int = 4, rounds: int = 25, stride: int = 1) -> None:
        super().__init__(length)
        if rounds < 1 or stride < 1:
            raise ValueError(f"SlidingWindow needs rounds >= 1 and stride >= 1, and got {rounds} and {stride}")
        self.rounds = rounds
        self.stride = stride

    def offset(self, steps: int, rounds: int, seed: int) -> int:
        return min(rounds // self.rounds * self.stride, steps - self.length)


def check_fit(least: int, steps: int, window: Window, name: str) -> None:
    """Raises a ``ValueError`` if a window needs a chain of ``least`` steps or more, and the chain is shorter.

    Args:
        least: The number of steps that the window needs.
        steps: The number of steps of the chain.
        window: The window.
        name: The argument of the window to set lower.
    """
    if least > steps:
        raise ValueError(
            f"{type(window).__name__} needs a chain of {least} steps or more, and this one has {steps}; set {name} lower, or "
            "the sampler's steps higher"
        )
