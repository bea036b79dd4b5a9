"""What a dashboard shows, as plain data: a function of the names of what runs have logged."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

STEP = "trainer/global_step"
"""The number of updates, which every row of a run has."""
SECONDS = "_runtime"
"""The seconds since the run began; W&B adds them to every row."""
CALLS = "reward_calls"
NOT_SHOWN = (STEP, "epoch", "updates")
"""The axes: what would show a straight line."""
MEDIA, TABLES, SAMPLES = "media/", "tables/", "tables/samples/"


@dataclass(frozen=True)
class Plot:
    """Lines of numbers against another one.

    Args:
        title: The title.
        keys: The names of the numbers.
        x: The name of the number on the horizontal axis.
        x_title: What the horizontal axis is called.
    """

    title: str
    keys: Sequence[str]
    x: str = STEP
    x_title: str = "updates"


@dataclass(frozen=True)
class Gallery:
    """Images or videos.

    Args:
        title: The title.
        keys: Their names.
    """

    title: str
    keys: Sequence[str]


@dataclass(frozen=True)
class Sheet:
    """A table.

    Args:
        title: The title.
        key: Its name.
    """

    title: str
    key: str

    @property
    def keys(self) -> Sequence[str]:
        """Its name alone."""
        return (self.key,)


Panel = Plot | Gallery | Sheet


@dataclass(frozen=True)
class Section:
    """Panels under one heading.

    Args:
        name: The heading.
        panels: The panels.
        note: What to look for.
    """

    name: str
    panels: Sequence[Panel]
    note: str = ""

    @property
    def keys(self) -> set[str]:
        """The names of all that is shown."""
        return {key for panel in self.panels for key in panel.keys}


def layout(keys: Iterable[str]) -> list[Section]:
    """Returns the sections of the dashboard of runs that have logged these names.

    Every name is shown, except for those of axes and those that begin with an underscore, which W&B adds. A section without panels
    is left out. What belongs to no section is in the last one, a plot for each prefix.

    Args:
        keys: The names.
    """
    known = sorted(key for key in set(keys) if not key.startswith("_") and key not in NOT_SHOWN)
    sections = [Section(name, list(make(known)), note) for name, note, make in SECTIONS]
    shown = {key for section in sections for key in section.keys}
    rest = Section(
        REST, list(_rest([key for key in known if key not in shown])), "Statistics of the estimator, for example."
    )
    return [section for section in (*sections, rest) if section.panels]


def _with(keys: Sequence[str], *prefixes: str) -> list[str]:
    return [key for key in keys if key.startswith(prefixes)]


def held_out(keys: Sequence[str]) -> list[str]:
    """Returns the means of held-out measurements: of evaluations, validation and test."""
    return [key for key in _with(keys, "evaluation/", "val/", "test/") if not key.endswith("_difference")]


def trained(keys: Sequence[str]) -> list[str]:
    """Returns the mean training reward, raw and on published scales, and its parts."""
    return [key for key in _with(keys, "reward/") if key != "reward/std"]


def _rewards(keys: Sequence[str]) -> Iterator[Panel]:
    axes = [(STEP, "updates"), (SECONDS, "seconds"), *([(CALLS, "reward calls")] if CALLS in keys else [])]
    for x, title in axes:
        for key in trained(keys):
            yield Plot(f"{key.removeprefix('reward/')}, training", [key], x, title)
        # validation has no count of reward calls in its rows
        found = [key for key in held_out(keys) if x != CALLS or key.startswith("evaluation/")]
        for name, members in _measurements(found).items():
            yield Plot(f"{name}, held out", members, x, title)
    if "reward/std" in keys:
        yield Plot("reward, standard deviation in a round", ["reward/std"])


def _measurements(keys: Sequence[str]) -> dict[str, list[str]]:
    """Returns the names of each measurement on all sets of prompts."""
    found: dict[str, list[str]] = {}
    for key in keys:
        found.setdefault(key.rpartition("/")[2], []).append(key)
    return found


def _gains(keys: Sequence[str]) -> Iterator[Panel]:
    for name, members in _measurements([key for key in _with(keys, "evaluation/") if _is_gain(key)]).items():
        yield Plot(f"{name.removesuffix('_difference')}, aligned − base", members)


def _is_gain(key: str) -> bool:
    return key.endswith("_difference")


def gold(keys: Sequence[str]) -> Iterator[Panel]:
    """Yields plots of the other held-out measurements against the trained reward on the same prompts."""
    proxies = {key.removeprefix("reward/") for key in trained(keys)} - {"mean"}
    sets: dict[str, list[str]] = {}
    for key in held_out(_with(keys, "evaluation/")):
        sets.setdefault(key.rpartition("/")[0], []).append(key)
    for name, members in sets.items():
        proxy = next((key for key in members if key.rpartition("/")[2] in proxies), None)
        for key in members:
            label = key.rpartition("/")[2]
            if proxy is not None and label not in proxies:
                trained_on = proxy.rpartition("/")[2]
                yield Plot(
                    f"{label} against {trained_on}, {name.removeprefix('evaluation/')}", [key], proxy, trained_on
                )


def _each(*prefixes: str) -> Callable[[Sequence[str]], Iterator[Panel]]:
    """Returns a function that plots the names with each of some prefixes together."""

    def make(keys: Sequence[str]) -> Iterator[Panel]:
        for prefix in prefixes:
            if found := _with(keys, prefix):
                yield Plot(TITLES.get(prefix, prefix.rstrip("/")), found)

    return make


TITLES = {
    "gradient/": "norm of the gradient by term",
    "cosine/": "cosine between terms",
    "weight/": "weight of each term",
    "explained/": "share of the reward's variance that is explained",
    "group/": "rewards within groups",
    "kl/": "divergence from the base model",
    "seconds/": "seconds of a round by part",
    "memory_mib/": "peak memory by part, MiB",
}
DISTRIBUTION = ("diversity", "cmmd", "precision", "recall")
"""What names of measurements of a distribution of samples have in them."""


def _diversity(keys: Sequence[str]) -> Iterator[Panel]:
    yield from _each("kl/")(keys)
    found = [key for key in held_out(keys) if any(word in key.rpartition("/")[2].lower() for word in DISTRIBUTION)]
    for name, members in _measurements(found).items():
        yield Plot(name, members)


def _cost(keys: Sequence[str]) -> Iterator[Panel]:
    if "samples_per_second" in keys:
        yield Plot("samples per second", ["samples_per_second"])
    yield from _each("seconds/", "memory_mib/")(keys)
    if counts := [key for key in keys if key in ("samples", CALLS)]:
        yield Plot("samples and reward calls", counts)


def _galleries(keys: Sequence[str]) -> Iterator[Panel]:
    for key in _with(keys, MEDIA):
        yield Gallery(key.removeprefix(MEDIA), [key])
    for key in sorted(_with(keys, TABLES), key=lambda key: not key.startswith(SAMPLES)):
        yield Sheet(key.removeprefix(TABLES), key)


def _rest(keys: Sequence[str]) -> Iterator[Panel]:
    """Plots what is left, such as the statistics of an estimator, a plot for each prefix."""
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(key.partition("/")[0], []).append(key)
    yield from (Plot(name, members) for name, members in groups.items())


SECTIONS: tuple[tuple[str, str, Callable[[Sequence[str]], Iterator[Panel]]], ...] = (
    ("Reward", "Training reward and held-out measurements against updates, seconds and reward calls.", _rewards),
    ("Gold against proxy", "A bend downwards: the model games the reward that it is trained on.", gold),
    ("Gain over the base model", "Paired differences on the same noise.", _gains),
    ("Divergence and diversity", "Diversity that falls while the reward rises: samples become similar.", _diversity),
    ("Groups", "A group without spread has no gradient.", _each("group/")),
    (
        "Gradient",
        "A term whose norm is far above the others decides the direction.",
        _each("gradient/", "cosine/", "weight/"),
    ),
    ("Control variates", "", _each("explained/")),
    ("VBench", "", _each("vbench/")),
    ("Cost", "Throughput, seconds and memory by part of a round.", _cost),
    ("Samples", "", _galleries),
)
"""Name, note and panels of each section."""
REST = "Further"
"""The section of what belongs to no other one."""
