"""Small tensors are fastest on one thread."""

import gc
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def without_older_objects() -> None:
    """Exempts what lives already from garbage collection, so that a test that often collects searches its own objects alone."""
    gc.collect()
    gc.freeze()
