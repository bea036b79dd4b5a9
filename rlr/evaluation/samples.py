r"""Samples of prompts on fixed noises.

Sample :math:`k` of prompt :math:`i` has the noise of ``spawn(seed, Stream.EVALUATION, i, k)``, here and in ``validate``, ``test``
and ``predict``. A sample is therefore the same in every batch, on every number of processes, and whatever prompts and samples
follow it. Two models that are sampled with one seed see the same noise, so that differences between them are paired.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from rlr import lockstep
from rlr.chain import Chain
from rlr.modules.sampling import finite, sample, warn_not_finite
from rlr.seeding import Stream, spawn


class SampleBatch(NamedTuple):
    r"""Some samples of a set.

    Args:
        rows: Their numbers, :math:`i S + k` for sample :math:`k` of prompt :math:`i`.
        prompts: The prompt of each.
        pixels: The samples in [0, 1], with shape :math:`(B, *)`.
    """

    rows: list[int]
    prompts: list[str]
    pixels: Tensor

    def finite(self) -> "SampleBatch":
        """Returns the samples whose pixels are all finite, and warns of the others."""
        keep = finite(self.pixels)
        whole, broken = ([k for k, sound in enumerate(keep.tolist()) if sound is which] for which in (True, False))
        if not broken:
            return self
        warn_not_finite([(self.rows[k], self.prompts[k]) for k in broken])
        return SampleBatch([self.rows[k] for k in whole], [self.prompts[k] for k in whole], self.pixels[keep])


@dataclass(frozen=True)
class SampleSet:
    r""":math:`S` samples of each of :math:`N` prompts.

    Args:
        prompts: The prompts.
        samples: The number :math:`S` of samples per prompt.
        seed: The seed of all noise.
        batch_size: The most samples to make at once.
        numbers: The number :math:`i` of each prompt, which decides its noise; by default its position.
    """

    prompts: Sequence[str]
    samples: int = 1
    seed: int = 0
    batch_size: int = 8
    numbers: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.prompts) * self.samples

    @property
    def key(self) -> Mapping[str, object]:
        """What the noises and prompts of the samples follow from, as plain data."""
        # the form of a list: a prompt may hold any sign that would separate prompts
        texts = repr(list(self.prompts))
        numbers = None if self.numbers is None else list(self.numbers)
        digest = hashlib.sha256(texts.encode()).hexdigest()
        size = {"number": len(self.prompts), "samples": self.samples}
        return {"prompts": digest, "numbers": numbers, "seed": self.seed, **size}

    def first(self, number: int) -> "SampleSet":
        """Returns the set of the first ``number`` prompts."""
        numbers = None if self.numbers is None else self.numbers[:number]
        return replace(self, prompts=self.prompts[:number], numbers=numbers)

    def rows(self, rank: int = 0, world: int = 1) -> list[int]:
        r"""Returns the rows of rank :math:`r` of :math:`W`: those of the prompts :math:`r + j W`."""
        return [i * self.samples + k for i in range(rank, len(self.prompts), world) for k in range(self.samples)]

    def seed_of(self, row: int) -> int:
        """Returns the seed of the noise of a row."""
        i, k = divmod(row, self.samples)
        return spawn(self.seed, Stream.EVALUATION, i if self.numbers is None else self.numbers[i], k)

    def batches(self, chain: Chain, rows: Sequence[int] | None = None) -> Iterator[SampleBatch]:
        """Samples rows, by default all, and yields them in batches.

        In :mod:`lockstep <rlr.lockstep>` all processes call it together, also one without rows.
        """
        rows = self.rows() if rows is None else rows
        starts = range(0, len(rows), self.batch_size)
        missing = lockstep.idle(len(starts))
        for at in starts:
            some = list(rows[at : at + self.batch_size])
            yield SampleBatch(some, *self._sample(chain, some))
        for _ in missing:
            self._sample(chain, [0])

    def _sample(self, chain: Chain, rows: Sequence[int]) -> tuple[list[str], Tensor]:
        """Returns prompts and pixels of rows."""
        prompts = [self.prompts[row // self.samples] for row in rows]
        return prompts, sample(chain, prompts, [self.seed_of(row) for row in rows])
