r"""The order in which prompts are read: a pure function of the seed and of the number of samples read before."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch

from rlr import lockstep
from rlr.seeding import Stream, spawn


class PromptBatch(NamedTuple):
    r"""The input of a step.

    Args:
        prompts: The :math:`B` prompts.
        indices: The numbers of the samples, :math:`B` integers that no other sample of the run (in training) or of
            the split (in evaluation) has.
    """

    prompts: list[str]
    indices: list[int]


class PromptStream:
    r"""Training prompts: an endless sequence of passes over the prompts, each in its own order.

    The :math:`W` ranks together take :math:`W B` samples at a time: rank :math:`r` takes samples
    :math:`n + r B, \dots, n + (r + 1) B - 1` if :math:`n` were taken before. So ranks share no sample, and together they
    read what one process reads. Each :math:`k` consecutive samples have the same prompt. Batches are always full. An
    epoch of the trainer is as many batches as one pass fills.

    The state counts the samples and the prompts that all ranks have read. A resumed run goes on with the first prompt
    that was not read, whatever its batch size, its number of ranks or its :math:`k`.

    Args:
        prompts: The :math:`N` prompts.
        batch_size: The number :math:`B` of samples in a batch of a rank, a multiple of :math:`k`.
        repeat: The number :math:`k` of samples of one prompt, side by side in the batch.
        seed: Decides the order of each pass.
        shuffle: Whether to shuffle each pass.
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
        self.samples_read = 0
        self.prompts_read = 0
        self._order: tuple[int, list[int]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self.prompts) * self.repeat // (self.batch_size * self.world))

    def __iter__(self) -> Iterator[PromptBatch]:
        for _ in range(len(self)):
            yield self._next()

    def _next(self) -> PromptBatch:
        """Returns this rank's next batch, and counts those of all ranks."""
        rows = range(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        batch = PromptBatch(
            [self.prompt(self.prompts_read + row // self.repeat) for row in rows],
            [self.samples_read + row for row in rows],
        )
        self.samples_read += self.world * self.batch_size
        self.prompts_read += self.world * self.batch_size // self.repeat
        return batch

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
        """Returns the numbers of samples and of prompts that all ranks have read."""
        return {"samples": self.samples_read, "prompts": self.prompts_read}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Restores what :meth:`state_dict` returned.

        Raises:
            ValueError: If ``state`` is anything else.
        """
        counts = [state.get(name) if isinstance(state, Mapping) else None for name in ("samples", "prompts")]
        if not all(isinstance(count, int) and count >= 0 for count in counts):
            raise ValueError(
                "the checkpoint's place in the training prompts: expected the numbers 'samples' and 'prompts', found "
                f"{state!r}; start a new run, or resume with the version that wrote the checkpoint"
            )
        self.samples_read, self.prompts_read = counts  # type: ignore[assignment]


def never(prompt: str, index: int) -> bool:
    """Returns False: no sample is there already."""
    return False


class PromptPass:
    r"""Evaluation prompts: every prompt, ``repeat`` times side by side, once; rank :math:`r` has rows :math:`r + jW`.

    The length is that of rank 0, which has the most batches. Others may yield fewer, or none if there are fewer rows than
    ranks: a length of 0 would let a rank leave out the trainer's loop, and the others would wait for it forever. In
    :mod:`lockstep <rlr.lockstep>` each has an empty batch where it has none.

    Args:
        prompts: The prompts.
        batch_size: The largest number of samples in a batch of a rank.
        repeat: The number of samples of one prompt.
        rank: The rank :math:`r`.
        world: The number :math:`W` of ranks.
        numbers: The number :math:`i` of each prompt, of which sample :math:`k` has the index :math:`i S + k`; by default its
            position.
        finished: Whether a sample, given by its prompt and index, is there already. A batch of finished samples is left out; others
            are made whole, since the last digits of a sample may depend on its batch.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        batch_size: int,
        repeat: int = 1,
        rank: int = 0,
        world: int = 1,
        numbers: Sequence[int] | None = None,
        finished: Callable[[str, int], bool] = never,
    ) -> None:
        self.prompts = prompts
        self.numbers = range(len(prompts)) if numbers is None else numbers
        self.finished = finished
        self.batch_size = batch_size
        self.repeat = repeat
        self.rows = range(rank, len(prompts) * repeat, world)
        self.longest = len(range(0, len(prompts) * repeat, world))

    def __len__(self) -> int:
        return -(-self.longest // self.batch_size)

    def __iter__(self) -> Iterator[PromptBatch]:
        for start in range(0, self.longest, self.batch_size):
            rows = [divmod(row, self.repeat) for row in self.rows[start : start + self.batch_size]]
            batch = PromptBatch(
                [self.prompts[i] for i, _ in rows], [self.numbers[i] * self.repeat + k for i, k in rows]
            )
            if not all(map(self.finished, *batch)):
                yield batch
            elif lockstep.enabled:
                yield PromptBatch([], [])
