"""``python experiments/run.py NAME``: the command line is :mod:`experiments.cli`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from experiments.cli import main

if __name__ == "__main__":
    sys.exit(main())
