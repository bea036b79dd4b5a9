"""The prompts of VBench, Huang et al. (2024), a benchmark of video models."""

from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlr.data.files import prompt_of, read_items
from rlr.data.prompts import PromptData

SIX = (
    "subject_consistency",
    "background_consistency",
    "motion_smoothness",
    "dynamic_degree",
    "aesthetic_quality",
    "imaging_quality",
)
"""The dimensions that need no annotation of the prompt; they are judged on 72 + 86 + 93 = 251 prompts."""


class VBenchPrompts(PromptData):
    r"""The prompts on which some dimensions of VBench are judged, for evaluation only.

    Validation, test and prediction are the same. Prompts are left as they are, since VBench finds videos by them.
    ``dimensions_of`` maps each prompt to those of the dimensions that are judged on it.

    Args:
        dimensions: The dimensions, by default :data:`SIX`.
        path: A ``VBench_full_info.json``, by default that of the installed package ``vbench``.
        evaluation_samples: The number of videos of each prompt: 5, as VBench asks for, by default.
        **loader: The other arguments of :class:`~rlr.data.prompts.PromptData`.

    Raises:
        FileNotFoundError: If there is no such file, or the package is not installed.
        ValueError: If the file is of another layout, or no prompt is for a dimension.
    """

    def __init__(
        self,
        dimensions: tuple[str, ...] = SIX,
        path: str | None = None,
        evaluation_samples: int = 5,
        **loader: Any,
    ) -> None:
        super().__init__(evaluation_samples=evaluation_samples, **loader)
        file = Path(path).expanduser() if path else _installed()
        found = _chosen(_dimensions(file), dimensions, file)
        self.dimensions_of = {
            prompt: names for prompt, names in found.items() if self.keep is None or self.keep(prompt)
        }

    def prompts(self, split: str) -> list[str]:
        return [] if split == "train" else list(self.dimensions_of)

    def remedy(self, split: str) -> str:
        held_out = "set data.init_args.dimensions"
        return "train on others, such as those of MotionPrompts" if split == "train" else held_out


def _installed() -> Path:
    # found without being imported, since it imports a dozen networks
    spec = find_spec("vbench")
    if spec is None or spec.origin is None:
        raise FileNotFoundError(
            "the package vbench is not installed; install it, or set data.init_args.path to a VBench_full_info.json"
        )
    return Path(spec.origin).with_name("VBench_full_info.json")


def _dimensions(path: Path) -> dict[str, tuple[str, ...]]:
    """Returns the dimensions of each prompt of a file."""
    found: dict[str, tuple[str, ...]] = {}
    for prompt, dimensions in _items(path):
        found[prompt] = (*found.get(prompt, ()), *dimensions)
    return {prompt: dimensions for prompt, dimensions in found.items() if prompt.strip()}


def _items(path: Path) -> Iterator[tuple[str, list[str]]]:
    for number, item in enumerate(read_items(path), 1):
        place = f"item {number} of {path}"
        prompt = prompt_of(item, place, "prompt_en")
        yield prompt, _names(item, place)


def _names(item: Any, place: str) -> list[str]:
    names = item.get("dimension") if isinstance(item, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{place} has no list of names under 'dimension'; use a VBench_full_info.json")
    return names


def _chosen(found: dict[str, tuple[str, ...]], wanted: Iterable[str], path: Path) -> dict[str, tuple[str, ...]]:
    known = {name for names in found.values() for name in names}
    for name in wanted:
        if name not in known:
            raise ValueError(f"no prompt of {path} is for the dimension {name!r}; there are {', '.join(sorted(known))}")
    kept = {prompt: tuple(name for name in names if name in wanted) for prompt, names in found.items()}
    return {prompt: names for prompt, names in kept.items() if names}
