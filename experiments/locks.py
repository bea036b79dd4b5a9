"""Claims of runs: processes of one machine share the runs of an experiment."""

import hashlib
from contextlib import AbstractContextManager
from pathlib import Path

from experiments.base import Run
from experiments.settings import Setting
from rlr.io import locks


def claimed(setting: Setting, experiment: str, run: Run) -> AbstractContextManager[bool]:
    """Claims a run for this process, so that no other process measures it at the same time; see :func:`rlr.io.locks.claimed`."""
    return locks.claimed(claim_file(setting, experiment, run))


def claim_file(setting: Setting, experiment: str, run: Run) -> Path:
    """Returns the file whose lock claims a run."""
    digest = hashlib.sha256(f"{experiment} {run.title}".encode()).hexdigest()[:16]
    return setting.runs / "claims" / digest
