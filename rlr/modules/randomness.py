"""The states of the global random number generators of PyTorch, NumPy and Python, for checkpoints."""

import random
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Returns the states of the global generators, in types that ``torch.load(weights_only=True)`` accepts."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Restores what :func:`random_state` returned.

    Raises:
        ValueError: If it is something else.
    """
    try:
        torch.set_rng_state(state["torch"].cpu())
        if len(state["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
        kind, keys, *rest = state["numpy"]
        np.random.set_state((kind, keys.cpu().numpy().astype(np.uint32), *rest))
        random.setstate(state["python"])
    # what the generators raise for a state that is not one of theirs
    except (TypeError, ValueError, LookupError, RuntimeError, AttributeError, OverflowError) as error:
        raise ValueError(
            "the checkpoint does not hold the states of the random generators of PyTorch, NumPy and Python as `fit` writes them; "
            "resume from another one"
        ) from error
