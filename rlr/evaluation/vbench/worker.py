"""The process in which VBench itself runs: ``python worker.py JOB``.

The package sets up logging, prints, and has one loader that PyTorch's safe mode refuses; in a process of its own this concerns
nothing else. Its command asks for NCCL, so its Python interface is called, with the list of videos made beforehand. JOB is a JSON
file; progress goes to stdout, one JSON per line, and all that VBench prints goes to stderr. The process ends when its stdin closes.
"""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

TRUST = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
"""The environment variable with which ``torch.load`` unpickles any object."""


def main(job: str) -> int:
    """Judges what ``job`` says, and returns the exit status."""
    task = json.loads(Path(job).read_text(encoding="utf-8"))
    threading.Thread(target=_end_with_caller, args=(sys.stdin.fileno(), task["folder"]), daemon=True).start()
    events = _keep_stdout()
    for dimension in task["dimensions"]:
        _send(events, {"begun": dimension["name"]})
        try:
            with _trusting(dimension["pickled"]):
                result = _judge(task, dimension["name"])
        except Exception as error:
            _send(events, {"failed": dimension["name"], "error": f"{type(error).__name__}: {error}"})
            raise
        _send(events, {"done": dimension["name"], "result": result})
    return 0


def _judge(task: Mapping[str, Any], dimension: str) -> Any:
    from vbench import VBench

    class Listed(VBench):
        """VBench on videos that are listed already."""

        def build_full_info_json(self, *args: object, **settings: object) -> str:
            return self.full_info_dir

    judge = Listed(task["device"], task["info"], task["folder"])
    judge.evaluate(task["folder"], dimension, dimension_list=[dimension], local=True)
    return json.loads(Path(task["folder"], f"{dimension}_eval_results.json").read_text(encoding="utf-8"))[dimension]


def _end_with_caller(stdin: int, folder: str) -> None:
    """Ends this process when the one that has started it is gone, which closes the pipe, and removes the folder of the job."""
    while os.read(stdin, 1024):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


def _keep_stdout() -> TextIO:
    """Returns the present stdout; from now on stdout is stderr, for the programs that VBench starts, too."""
    events = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return events


def _send(events: TextIO, event: Mapping[str, Any]) -> None:
    events.write(f"{json.dumps(event)}\n")
    events.flush()


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
