"""How threads of OpenMP wait for one another."""

from collections.abc import MutableMapping

SPINS = "20000"
"""The number of looks before a thread that waits sleeps: some microseconds, where GNU's OpenMP looks 300,000 times by default."""


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Lets threads that wait sleep soon, if the environment does not say otherwise; to be called before torch is imported.

    On a machine whose cores other programs use, a thread of GNU's OpenMP that looks for the others takes the time that they need:
    steps of a small network then take many times as long. On free cores it changes nothing.

    Args:
        environment: The environment variables, ``os.environ``.
    """
    if "OMP_WAIT_POLICY" not in environment:
        environment.setdefault("GOMP_SPINCOUNT", SPINS)
