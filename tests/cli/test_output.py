"""A command succeeds whatever its standard output is."""

import os
import subprocess
import sys

CODE = """
import sys
from rlr.cli.output import tolerate_output
tolerate_output()
print("2 prompts × 3, ➜ 0.5")
sys.stdout.write("x" * 1_000_000 + chr(10))
sys.stdout.flush()
print("on stderr", file=sys.stderr)
print("the last line")
"""


def run(prefix=(), **options) -> subprocess.CompletedProcess:
    return subprocess.run([*prefix, sys.executable, "-c", CODE], stderr=subprocess.PIPE, timeout=60, **options)


def test_signs_that_cannot_be_encoded_are_substituted():
    done = run(stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == b"2 prompts ? 3, ? 0.5"
    assert done.stdout.splitlines()[-1] == b"the last line"


def test_latin_1_keeps_the_signs_that_it_has():
    done = run(stdout=subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert done.stdout.splitlines()[0] == "2 prompts × 3, ? 0.5".encode("latin-1")


def test_a_pipe_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    done = run(stdout=writer)
    assert (done.returncode, done.stderr) == (0, b"on stderr\n")


def test_a_closed_stream():
    done = run(prefix=["/bin/sh", "-c", '"$@" >&-', "sh"])
    assert (done.returncode, done.stderr) == (0, b"on stderr\n")


def test_without_it_the_command_fails():
    """What the others guard against is real."""
    done = subprocess.run(
        [sys.executable, "-c", CODE.replace("tolerate_output()\n", "")],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 1
