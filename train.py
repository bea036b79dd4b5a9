"""``python train.py fit|validate|test|predict --config FILE``: the command line is :mod:`rlr.cli`."""

from rlr.cli import main

if __name__ == "__main__":
    main()
