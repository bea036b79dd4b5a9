"""Whether the hub answers: without a network its client asks six times for each file, and waits 23 seconds."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic

TIMEOUT = 5.0
"""The number of seconds that the hub may take to answer the question whether it is there."""
PERIOD = 60.0
"""The number of seconds for which an answer holds."""


@contextmanager
def cache_if_offline(source: str = "") -> Iterator[None]:
    """Within, the client of the hub reads its cache alone, as with ``HF_HUB_OFFLINE``, if the hub does not answer.

    Args:
        source: What is loaded; a local file or folder needs no hub, so that nothing is asked.
    """
    if source and Path(source).expanduser().exists():
        yield
        return
    from huggingface_hub import constants

    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = unreachable() is not None
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


def unreachable() -> str | None:
    """Returns why nothing can be downloaded from the hub, in words; None if it answers."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if _answers(constants.ENDPOINT, int(monotonic() // PERIOD)) else f"{constants.ENDPOINT} does not answer"


@cache
def _answers(endpoint: str, period: int) -> bool:
    """Whether there is any answer, an error included; ``period`` is the time, for the cache."""
    from huggingface_hub.utils import get_session

    try:
        # the client of the hub itself, with its proxies and certificates
        get_session().request("HEAD", endpoint, timeout=TIMEOUT)
    # the class depends on the HTTP library that this version of the client is made with
    except Exception:
        return False
    return True
