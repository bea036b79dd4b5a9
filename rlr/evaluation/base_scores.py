"""The scores of the base model, computed once and kept in a file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlr.io.keyed_file import Key, KeyedFile, pass_over

Probe = Mapping[str, Sequence[float]]
"""A few numbers that another model, sampler or metric would change."""


class BaseScores:
    r"""Scores in ``base_scores.jsonl``, found again by what they depend on.

    The key is what is known beforehand: prompts, seed, and class, arguments and code of the metrics. What else matters, such as
    weights, sampler and guidance, is found in a probe: what the model makes of the first prompt. Scores with another probe are not
    used.

    Args:
        folder: The folder of the file.
        key: What is known beforehand, as plain data.
        tolerance: The largest relative difference of probes that are the same; another device may exceed it, and
            then the scores are computed again.
    """

    def __init__(self, folder: Path, key: Key, tolerance: float = 1e-4) -> None:
        self.file = KeyedFile(folder / "base_scores.jsonl", pass_over)
        self.key, self.tolerance = key, tolerance

    def find(self, probe: Probe) -> dict[str, Tensor] | None:
        """Returns the scores by label, or None where none fit."""
        try:
            found = self.file.get(self.key)
            if found is None or not self._agree(found["probe"], probe):
                return None
            return {label: torch.tensor(values) for label, values in found["scores"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            # of another version: the scores are computed and written again
            return None

    def keep(self, probe: Probe, scores: Mapping[str, Tensor]) -> None:
        """Writes the scores."""
        values = {label: values.tolist() for label, values in scores.items()}
        self.file.put(self.key, {"probe": dict(probe), "scores": values})

    def _agree(self, one: Probe, other: Probe) -> bool:
        return one.keys() == other.keys() and all(
            len(one[name]) == len(other[name])
            and np.allclose(one[name], other[name], rtol=self.tolerance, atol=self.tolerance, equal_nan=True)
            for name in one
        )
