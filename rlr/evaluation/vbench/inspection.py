"""A check of every video before it is judged: VBench skips what it cannot read, and returns numbers for what it cannot judge."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rlr.evaluation.vbench.dimensions import DIMENSIONS
from rlr.evaluation.vbench.videos import Entry
from rlr.io.hub import checksum
from rlr.io.video import read_video


def inspect(entries: Sequence[Entry], progress: Callable[[int], None] = lambda done: None) -> dict[Path, str]:
    """Reads every video to its end, and returns the SHA-256 of each file.

    Args:
        entries: The videos, with what is judged on each.
        progress: Called with the number of videos that are read.

    Raises:
        ValueError: If one is damaged, too short or too small.
    """
    found: dict[Path, str] = {}
    for entry in entries:
        for path in entry.videos:
            _check(path, entry.dimensions)
            found[path] = checksum(path)
            progress(len(found))
    return found


def _check(path: Path, dimensions: Sequence[str]) -> None:
    video = read_video(path)
    frames, _, height, width = video.frames.shape
    for name in dimensions:
        objection = DIMENSIONS[name].objection(frames, height, width, video.fps)
        if objection:
            raise ValueError(f"the video {path} {objection}; remove it, or leave the dimension out with --dimensions")
