"""How much memory an estimate needs, how much full backpropagation would need, and how much there is."""

import os

import torch

from rlr.analysis.measure import peak_bytes
from rlr.analysis.problem import Estimand
from rlr.estimators import FirstOrder
from rlr.estimators.base import Estimator


def peak_memory(estimand: Estimand, estimator: Estimator, number: int = 0) -> int:
    """Returns the most bytes of tensors alive at once in an estimate, beyond weights and those there before.

    Args:
        estimand: What is estimated.
        estimator: The estimator.
        number: The number of the batch.

    Raises:
        ValueError: If the estimator does not fit the chain or the batch.
        torch.OutOfMemoryError: If the device has less.
    """
    estimator.check(estimand.chain)
    return peak_bytes(lambda: estimand.estimate(estimator, number), estimand.chain.model.device)


def predicted_full_memory(estimand: Estimand) -> int:
    r"""Returns the bytes that backpropagation through all :math:`T` steps would need.

    Each further step adds as much as the third adds to the second (the first may add less: the reward's graph is gone by the time
    of its own backward), so that a graph of three steps is the largest that is made.
    """
    steps = estimand.chain.steps
    two = peak_memory(estimand, FirstOrder(min(steps, 2)))
    return two if steps <= 2 else two + (steps - 2) * max(0, peak_memory(estimand, FirstOrder(3)) - two)


def available_bytes(device: torch.device) -> float:
    """Returns the bytes of memory that are free on a device; infinity where the system does not report them."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (ValueError, OSError):
        return float("inf")
