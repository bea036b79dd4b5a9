"""The scores of the base model, computed once and kept in a file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from rlr.io.atomic import write_whole

Probe = Mapping[str, Sequence[float]]
"""A few numbers that another model, sampler or metric would change."""


class BaseScores:
    r"""A file of scores, found again by what the scores depend on.

    The name of the file follows from what is known beforehand: prompts, seed, and class, arguments and code of the metrics. What
    else matters, such as weights, sampler and guidance, is found in a probe: what the model makes of the first prompt. A file with
    another probe is not used.

    Args:
        folder: The folder of the file.
        key: What is known beforehand, as plain data.
        tolerance: The largest relative difference of probes that are the same; another device may exceed it, and
            then the scores are computed again.
    """

    def __init__(self, folder: Path, key: Mapping[str, object], tolerance: float = 1e-4) -> None:
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"base_{digest}.json"
        self.key = key
        self.tolerance = tolerance

    def find(self, probe: Probe) -> dict[str, Tensor] | None:
        """Returns the scores by label, or None where no file fits."""
        try:
            found = json.loads(self.path.read_text(encoding="utf-8"))
            if not self._agree(found["probe"], probe):
                return None
            return {label: torch.tensor(values) for label, values in found["scores"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            # no file yet, or one of another program: the scores are computed and written again
            return None

    def keep(self, probe: Probe, scores: Mapping[str, Tensor]) -> None:
        """Writes the scores."""
        content = {**self.key, "probe": probe, "scores": {label: values.tolist() for label, values in scores.items()}}
        write_whole(self.path, f"{json.dumps(content, ensure_ascii=False)}\n".encode())

    def _agree(self, one: Probe, other: Probe) -> bool:
        return one.keys() == other.keys() and all(
            len(one[name]) == len(other[name])
            and np.allclose(one[name], other[name], rtol=self.tolerance, atol=self.tolerance, equal_nan=True)
            for name in one
        )
