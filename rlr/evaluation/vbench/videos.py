"""Which videos a set needs, which are there, and what is judged on each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlr.evaluation.vbench.dimensions import DIMENSIONS, Dimension, named, with_free
from rlr.evaluation.vbench.naming import VideoName, check_names


@dataclass(frozen=True)
class Entry:
    """Videos of one prompt.

    Args:
        prompt: The prompt.
        dimensions: The names of the dimensions that are judged on them.
        videos: Their files.
    """

    prompt: str
    dimensions: tuple[str, ...]
    videos: tuple[Path, ...]


class VideoSet(ABC):
    """What is to be judged of the videos in a folder."""

    @property
    @abstractmethod
    def judged(self) -> tuple[Dimension, ...]:
        """All that is judged: what is asked for, and on every video the dimensions that need no file."""

    @abstractmethod
    def entries(self, folder: Path) -> list[Entry]:
        """Returns the videos in a folder with what is judged on each.

        Raises:
            FileNotFoundError: If there is no such folder.
            ValueError: If it does not hold the videos of the set.
        """

    @abstractmethod
    def describe(self, entries: Sequence[Entry]) -> str:
        """Returns in a few words what the scores are of, where that is not the whole set; else an empty text."""


@dataclass(frozen=True)
class PromptSet(VideoSet):
    """Samples 0, 1, … of given prompts, each with dimensions of its own: VBench's standard mode.

    Args:
        dimensions_of: The names of the dimensions of each prompt.
        samples: The number of videos of each prompt.
        partial: Whether a set with missing videos may be judged.
    """

    dimensions_of: Mapping[str, tuple[str, ...]]
    samples: int = 5
    partial: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(
                f"VBench: expected samples >= 1, found {self.samples}; VBench asks for 5 videos of each prompt"
            )
        check_names(self.dimensions_of)
        named(name for names in self.dimensions_of.values() for name in names)

    @property
    def dimensions(self) -> tuple[Dimension, ...]:
        """What is asked for."""
        names = {name for names in self.dimensions_of.values() for name in names}
        return tuple(dimension for dimension in DIMENSIONS.values() if dimension.name in names)

    @property
    def judged(self) -> tuple[Dimension, ...]:
        return with_free(self.dimensions)

    @property
    def names(self) -> list[VideoName]:
        """The names of all videos of the set, in its order."""
        return [VideoName(prompt, number) for prompt in self.dimensions_of for number in range(self.samples)]

    def first(self, number: int, samples: int) -> "PromptSet":
        """Returns the subset of the first ``number`` prompts of each dimension, with fewer samples of each."""
        wanted = {
            prompt
            for dimension in self.dimensions
            for prompt in [p for p, names in self.dimensions_of.items() if dimension.name in names][:number]
        }
        kept = {prompt: names for prompt, names in self.dimensions_of.items() if prompt in wanted}
        return PromptSet(kept, min(samples, self.samples), self.partial)

    def entries(self, folder: Path) -> list[Entry]:
        there = find(folder)
        absent = [name for name in self.names if name.file not in there]
        self._check(folder, there, absent)
        free = tuple(dimension.name for dimension in self.judged if dimension not in self.dimensions)
        entries = [
            Entry(prompt, (*names, *free), tuple(self._of(prompt, there)))
            for prompt, names in self.dimensions_of.items()
        ]
        entries = [entry for entry in entries if entry.videos]
        for dimension in self.judged:
            if not any(dimension.name in entry.dimensions for entry in entries):
                raise ValueError(f"no video in {folder} is judged on {dimension.name}; leave it out with --dimensions")
        return entries

    def _of(self, prompt: str, there: Mapping[str, Path]) -> Iterator[Path]:
        for number in range(self.samples):
            if (path := there.get(VideoName(prompt, number).file)) is not None:
                yield path

    def _check(self, folder: Path, there: Mapping[str, Path], absent: Sequence[VideoName]) -> None:
        count = len(self.names)
        if len(absent) == count:
            raise ValueError(
                f"none of the {len(there)} mp4 files in {folder} has the name of a video of the set, such as "
                f"{absent[0].file!r}; set another folder, or judge any videos with --custom"
            )
        if absent and not self.partial:
            raise ValueError(
                f"{folder} holds {count - len(absent)} of the {count} videos of the set, and {absent[0].file!r} is the "
                "first that is missing; sample the rest, or judge those that are there with --partial"
            )

    def describe(self, entries: Sequence[Entry]) -> str:
        found, whole = sum(len(entry.videos) for entry in entries), len(self.names)
        return f"{found} of {whole} videos" if found < whole else ""


@dataclass(frozen=True)
class AnyVideos(VideoSet):
    """Every mp4 file in a folder, each judged on every dimension: VBench's mode for the user's own videos.

    Args:
        dimensions: What is asked for.
    """

    dimensions: tuple[Dimension, ...]

    @property
    def judged(self) -> tuple[Dimension, ...]:
        return with_free(self.dimensions)

    def entries(self, folder: Path) -> list[Entry]:
        names = tuple(dimension.name for dimension in self.judged)
        return [Entry(path.stem, names, (path,)) for path in find(folder).values()]

    def describe(self, entries: Sequence[Entry]) -> str:
        return f"{len(entries)} own videos"


def find(folder: Path) -> dict[str, Path]:
    """Returns the mp4 files in a folder and the folders within it, by name.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds none, or two with one name.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder} (looked for at {folder.absolute()}); check the path")
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.mp4")):
        if path.name in found:
            raise ValueError(
                f"two videos have the name {path.name!r}, {found[path.name]} and {path}; VBench distinguishes them by name, "
                "so remove one"
            )
        found[path.name] = path
    if not found:
        raise ValueError(f"{folder} holds no mp4 file, and VBench judges no other; set another folder, or convert them")
    return found
