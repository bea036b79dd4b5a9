r"""The order in which prompts are read: a pure function of the seed and of the position in the stream."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch

from rlr.seeding import Stream, spawn


class PromptBatch(NamedTuple):
    r"""What a step is given.

    Args:
        prompts: The :math:`B` prompts.
        indices: The numbers of the samples, :math:`B` integers that no other sample of the run (in training) or of
            the file (in evaluation) has.
    """

    prompts: list[str]
    indices: list[int]


class PromptStream:
    r"""Training prompts: an endless sequence of passes over the prompts, each in an order of its own.

    Batch :math:`n` of rank :math:`r` of :math:`W` holds samples :math:`(n W + r) B, \dots, (n W + r + 1) B - 1` of the
    stream, so that ranks share no sample, and ranks together read what one process would read. Sample :math:`i` has
    prompt :math:`\lfloor i / k \rfloor` of the sequence. Batches are always full. An epoch of the trainer is as many
    batches as one pass fills; the position is the loader's state, so that a resumed run goes on where it stopped.

    Args:
        prompts: The :math:`N` prompts.
        batch_size: The samples :math:`B` a rank takes for a batch.
        repeat: The samples :math:`k` of one prompt, side by side in the batch.
        seed: Decides the order of each pass.
        shuffle: Whether there is an order to decide.
        rank: The rank :math:`r`.
        world: The number :math:`W` of ranks.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        batch_size: int,
        repeat: int = 1,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.prompts = prompts
        self.batch_size = batch_size
        self.repeat = repeat
        self.seed = seed
        self.shuffle = shuffle
        self.rank = rank
        self.world = world
        self.position = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self.prompts) * self.repeat // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[PromptBatch]:
        for _ in range(len(self)):
            self.position += 1
            yield self.batch(self.position - 1)

    def batch(self, n: int) -> PromptBatch:
        """Returns batch ``n`` of this rank."""
        first = (n * self.world + self.rank) * self.batch_size
        indices = list(range(first, first + self.batch_size))
        return PromptBatch([self.prompt(i // self.repeat) for i in indices], indices)

    def prompt(self, i: int) -> str:
        """Returns the ``i``-th prompt of the endless sequence."""
        number, place = divmod(i, len(self.prompts))
        if self._order[0] != number:
            self._order = (number, self._permutation(number))
        return self.prompts[self._order[1][place]]

    def _permutation(self, number: int) -> list[int]:
        if not self.shuffle:
            return list(range(len(self.prompts)))
        generator = torch.Generator().manual_seed(spawn(self.seed, Stream.PASS, number))
        return torch.randperm(len(self.prompts), generator=generator).tolist()

    def state_dict(self) -> dict[str, int]:
        """Returns the position."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Restores the position."""
        self.position = state["position"]


class PromptPass:
    r"""Evaluation prompts: every prompt, ``repeat`` times side by side, once; rank :math:`r` has rows :math:`r + jW`.

    Args:
        prompts: The prompts.
        batch_size: The most samples a rank takes for a batch.
        repeat: The samples of one prompt.
        rank: The rank :math:`r`.
        world: The number :math:`W` of ranks.
    """

    def __init__(self, prompts: Sequence[str], batch_size: int, repeat: int = 1, rank: int = 0, world: int = 1) -> None:
        self.prompts = prompts
        self.batch_size = batch_size
        self.repeat = repeat
        self.rows = range(rank, len(prompts) * repeat, world)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[PromptBatch]:
        for start in range(0, len(self.rows), self.batch_size):
            rows = list(self.rows[start : start + self.batch_size])
            yield PromptBatch([self.prompts[row // self.repeat] for row in rows], rows)
