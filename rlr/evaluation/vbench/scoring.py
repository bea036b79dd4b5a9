"""Scores of videos by the installed package ``vbench``, which runs in a process of its own."""

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rlr.evaluation.vbench import weights
from rlr.evaluation.vbench.dimensions import Dimension
from rlr.evaluation.vbench.inspection import inspect
from rlr.evaluation.vbench.videos import Entry
from rlr.io.keyed_file import Key, KeyedFile, pass_over
from rlr.io.terminal import TERMINAL, RemainingTime

DINO = "dino_model/dino_vitbase16_pretrain.pth"
"""The file that ``torch.hub`` asks for in a folder of its own."""

Say = Callable[[str], None]
"""Called with how far the work has come."""


def silent(text: str) -> None:
    """Does nothing."""


@dataclass(frozen=True)
class Score:
    """The scores of one dimension.

    Args:
        value: The score of all videos together, in [0, 1] for most networks.
        videos: The numbers of single videos, on scales of their own, by the name of the file.
    """

    value: float
    videos: Mapping[str, float]


@dataclass(frozen=True)
class Judge:
    """The installed VBench.

    A dimension whose videos and weights have not changed is not judged again: its score is kept in a file.

    Args:
        weights: The folder of weights.
        device: ``cuda`` or ``cpu``; anything else VBench takes for a CPU.
        gpu: The number of the GPU among those that this process sees, by default the first.
    """

    weights: Path
    device: str = "cpu"
    gpu: int | None = None

    def check(self, dimensions: Sequence[Dimension]) -> None:
        """Checks that the package and all weights are there, before anything is sampled.

        Raises:
            FileNotFoundError: If something is missing.
            ValueError: If a file is not the published one.
        """
        package()
        weights.check(dimensions, self.weights)

    def score(
        self, dimensions: Sequence[Dimension], entries: Sequence[Entry], out: Path, say: Say = silent
    ) -> dict[str, Score]:
        """Judges videos and returns the scores by the name of the dimension.

        Args:
            dimensions: What is judged.
            entries: The videos, with what is judged on each.
            out: Where scores are kept, and VBench's log.
            say: Called for every dimension.

        Raises:
            FileNotFoundError: If a file of weights or the package is missing.
            ValueError: If a video cannot be judged, or VBench gives no number.
            ChildProcessError: If VBench fails.
        """
        self.check(dimensions)
        say(f"reading {sum(len(entry.videos) for entry in entries)} videos …")
        digests = inspect(entries)
        store = KeyedFile(out / "scores.jsonl", pass_over)
        keys = {d.name: self._key(d, entries, digests) for d in dimensions}
        for name, result in self._run([d for d in dimensions if keys[d.name] not in store], entries, out, say):
            store.put(keys[name], asdict(read(name, result, entries)))
        return {name: Score(**store.get(key)) for name, key in keys.items()}

    def _key(self, dimension: Dimension, entries: Sequence[Entry], digests: Mapping[Path, str]) -> Key:
        """What a score depends on."""
        judged = {path.name: digests[path] for path in of(dimension.name, entries)}
        files = weights.digests([dimension], self.weights)
        return {"dimension": dimension.name, "vbench": package(), "videos": judged, "weights": files}

    def _run(
        self, dimensions: Sequence[Dimension], entries: Sequence[Entry], out: Path, say: Say
    ) -> Iterator[tuple[str, Any]]:
        """Yields name and result of each dimension as soon as VBench has it."""
        if not dimensions:
            return
        log = out / "vbench.log"
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as temporary, log.open("wb") as errors:
            job = self._job(dimensions, entries, Path(temporary))
            # as a file, since the package would import PyTorch and the rewards; -P: its folder holds no modules of others
            command = [sys.executable, "-P", str(Path(__file__).with_name("worker.py")), str(job)]
            environment = self._environment(Path(temporary))
            with _started(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process:
                yield from _events(process, len(dimensions), log, say)

    def _job(self, dimensions: Sequence[Dimension], entries: Sequence[Entry], folder: Path) -> Path:
        listed = [
            {
                "prompt_en": e.prompt,
                "dimension": list(e.dimensions),
                "video_list": [str(v.absolute()) for v in e.videos],
            }
            for e in entries
        ]
        info, job = folder / "info.json", folder / "job.json"
        info.write_text(json.dumps(listed), encoding="utf-8")
        asked = [{"name": dimension.name, "pickled": dimension.pickled} for dimension in dimensions]
        task = {"info": str(info), "folder": str(folder), "device": self.device, "dimensions": asked}
        job.write_text(json.dumps(task), encoding="utf-8")
        return job

    def _environment(self, folder: Path) -> dict[str, str]:
        checkpoints = folder / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True)
        # DINO's own code loads the file from there, wherever VBench has found it
        (checkpoints / Path(DINO).name).symlink_to((self.weights / DINO).absolute())
        places = {"VBENCH_CACHE_DIR": str(self.weights.absolute()), "TORCH_HOME": str(folder)}
        return {**os.environ, **places, **self._visible()}

    def _visible(self) -> dict[str, str]:
        """The environment in which the GPU is the first, for VBench compares the device with the word ``cuda``."""
        if self.gpu is None:
            return {}
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        return {"CUDA_VISIBLE_DEVICES": seen.split(",")[self.gpu] if seen else str(self.gpu)}


def package() -> str:
    """Returns the version of the installed VBench, without importing it.

    Raises:
        FileNotFoundError: If it is not installed.
    """
    try:
        return version("vbench")
    except PackageNotFoundError as error:
        raise FileNotFoundError("the package vbench is not installed; `make install` installs it") from error


def of(dimension: str, entries: Sequence[Entry]) -> list[Path]:
    """Returns the videos that are judged on a dimension, in VBench's order."""
    return [path for entry in entries if dimension in entry.dimensions for path in entry.videos]


def read(dimension: str, result: Any, entries: Sequence[Entry]) -> Score:
    """Returns a score from VBench's result.

    Raises:
        ValueError: If it is of other videos, or no number.
    """
    value = float(result[0])
    videos = {Path(video["video_path"]).name: float(video["video_results"]) for video in result[1]}
    left_out = [path.name for path in of(dimension, entries) if path.name not in videos]
    if left_out:
        raise ValueError(
            f"VBench passed over {left_out[0]!r} in {dimension} ({len(left_out)} videos in all); replace it"
        )
    wrong = [name for name, number in videos.items() if not math.isfinite(number)]
    if wrong or not math.isfinite(value):
        raise ValueError(
            f"VBench gives {wrong[0] if wrong else 'the set'} the {dimension} {videos[wrong[0]] if wrong else value}, which "
            "is no score; leave the video or the dimension out"
        )
    return Score(value, videos)


@contextmanager
def _started(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Within, the process runs; afterwards it does not, also after an exception."""
    # the process ends when its stdin closes, also where this one is killed
    process = subprocess.Popen(command, stdin=subprocess.PIPE, **settings)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _events(process: subprocess.Popen[bytes], count: int, log: Path, say: Say) -> Iterator[tuple[str, Any]]:
    assert process.stdout is not None
    doing, done, pace = "the start", 0, RemainingTime(count)
    for line in process.stdout:
        event = json.loads(line)
        if "begun" in event:
            doing = event["begun"]
            say(f"judging {doing} ({done + 1} of {count}) …")
            TERMINAL.status(" · ".join(filter(None, [f"judging {doing}", pace.reached(done)])))
        elif "done" in event:
            done += 1
            yield event["done"], event["result"]
        else:
            raise ChildProcessError(
                f"VBench failed in {event['failed']} ({' '.join(event['error'].split())}); see {log}"
            )
    if done < count:
        raise ChildProcessError(f"VBench ended in {doing} with status {process.wait()}; see {log}")
