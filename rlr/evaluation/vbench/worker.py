"""The process in which VBench itself runs: ``python -m rlr.evaluation.vbench.worker JOB``.

The package sets up logging, prints, and has one loader that PyTorch's safe mode refuses; here that is nobody else's
business. Its own command asks for NCCL, so its Python interface is called, with the list of clips made beforehand. JOB is
a JSON file; what is done is told on stdout, one JSON a line, and all that VBench prints goes to stderr.
"""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""The environment variable with which ``torch.load`` unpickles any object."""


def main(job: str) -> int:
    """Judges what ``job`` says, and returns the exit status."""
    told = _keep_stdout()
    task = json.loads(Path(job).read_text(encoding="utf-8"))
    for dimension in task["dimensions"]:
        _tell(told, {"begun": dimension["name"]})
        try:
            with _trusting(dimension["pickled"]):
                result = _judge(task, dimension["name"])
        except Exception as error:
            _tell(told, {"failed": dimension["name"], "error": f"{type(error).__name__}: {error}"})
            raise
        _tell(told, {"done": dimension["name"], "result": result})
    return 0


def _judge(task: Mapping[str, Any], dimension: str) -> Any:
    from vbench import VBench

    class Listed(VBench):
        """VBench on clips that are listed already."""

        def build_full_info_json(self, *args: object, **settings: object) -> str:
            return self.full_info_dir

    judge = Listed(task["device"], task["info"], task["folder"])
    judge.evaluate(task["folder"], dimension, dimension_list=[dimension], local=True)
    return json.loads(Path(task["folder"], f"{dimension}_eval_results.json").read_text(encoding="utf-8"))[dimension]


def _keep_stdout() -> TextIO:
    """Returns what was stdout; from now on stdout is stderr, for the programs that VBench starts, too."""
    told = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return told


def _tell(told: TextIO, event: Mapping[str, Any]) -> None:
    told.write(f"{json.dumps(event)}\n")
    told.flush()


@contextmanager
def _trusting(wanted: bool) -> Iterator[None]:
    """Within, files may hold any Python object, if that is wanted."""
    if not wanted:
        yield
        return
    os.environ[TRUST] = "1"
    try:
        yield
    finally:
        del os.environ[TRUST]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
