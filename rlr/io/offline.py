"""No download: only what is on this machine counts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

OFFLINE = "HF_HUB_OFFLINE"
"""The environment variable that the libraries of the hub read when they are imported."""


@contextmanager
def offline() -> Iterator[None]:
    """Within, the libraries of the hub look for files on this machine only."""
    from huggingface_hub import constants

    before, known = os.environ.get(OFFLINE), constants.HF_HUB_OFFLINE
    os.environ[OFFLINE], constants.HF_HUB_OFFLINE = "1", True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = known
        os.environ.pop(OFFLINE)
        if before is not None:
            os.environ[OFFLINE] = before
