r"""Windows of noise: the few steps of a round's rollouts that have noise, and on which the round trains.

All other steps are deterministic. A window of :math:`w` steps with the offset :math:`o` covers the steps
:math:`T - o, \dots, T - o - w + 1`.
"""

from abc import ABC, abstractmethod

import torch


class Window(ABC):
    r"""A choice of the window of each round.

    Args:
        length: The number :math:`w \geq 1` of steps of the window.
    """

    def __init__(self, length: int) -> None:
        if length < 1:
            raise ValueError(f"{type(self).__name__}.length: expected at least 1, got {length}")
        self.length = length

    @abstractmethod
    def offset(self, rounds: int, steps: int, seed: int) -> int:
        r"""Returns the offset :math:`o` of a round, :math:`0 \leq o \leq T - w`.

        Args:
            rounds: The number of rounds before it.
            steps: The number :math:`T` of steps of the chain.
            seed: The seed of the round.
        """


class RandomWindow(Window):
    r"""A window drawn for each round, each offset equally likely (Flow-GRPO's fast form; ``random`` in MixGRPO).

    Args:
        length: The number of steps of the window, 1 to 3 as published.
        within: The number of first steps within which it lies; by default :math:`T / 2`, as published, rounded up.
    """

    def __init__(self, length: int = 3, within: int | None = None) -> None:
        super().__init__(length)
        if within is not None and within < length:
            raise ValueError(f"RandomWindow.within: expected at least length={length}, got {within}")
        self.within = within

    def offset(self, rounds: int, steps: int, seed: int) -> int:
        within = min(max(self.within or (steps + 1) // 2, self.length), steps)
        generator = torch.Generator().manual_seed(seed)
        return int(torch.randint(within - self.length + 1, (), generator=generator))


class SlidingWindow(Window):
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

    def offset(self, rounds: int, steps: int, seed: int) -> int:
        return min(rounds // self.rounds * self.stride, steps - self.length)
