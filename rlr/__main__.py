"""``rlr COMMAND`` and ``python -m rlr COMMAND``: the command line of :mod:`rlr.cli`."""

from rlr.cli import main


def console() -> None:
    """Runs a command; the exit status is 0 unless it fails."""
    main()


if __name__ == "__main__":
    console()
