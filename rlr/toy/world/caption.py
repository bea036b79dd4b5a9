"""The content of a scene, as a :class:`Spec` and as an English caption; each determines the other.

The grammar, with ``[...]`` optional::

    caption  = things [background]
    things   = group [position] | thing "and" thing | thing relation thing
    group    = ("a" | "two" | "three" | "four") color shape
    background = "on a" tone [texture] "background"

Two deterministic rules split the grammar for evaluation. A caption that names a pair in :data:`NOVEL_PAIRS` is *novel*; a
caption whose text falls into a fixed hash bucket is *reserved*. Neither kind is used for training.
"""

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SHAPES = ("circle", "square", "triangle", "cross", "heart")
COLORS = ("red", "orange", "yellow", "green", "blue", "purple")
COUNTS = ("a", "two", "three", "four")
POSITIONS = ("on the left", "on the right", "at the top", "at the bottom", "in the center")
RELATIONS = ("left of", "right of", "above", "below")
TONES = ("white", "gray", "black")
TEXTURES = ("plain", "striped", "checkered")
KINDS = ("single", "position", "count", "pair", "relation")
KIND_WEIGHTS = (0.14, 0.18, 0.26, 0.18, 0.24)
NAMING = (0.5, 0.25, 0.25)
"""The probabilities that a caption names nothing about the background, its tone, or its tone and texture."""

NOVEL_PAIRS = frozenset(
    {("red", "triangle"), ("orange", "heart"), ("yellow", "square"), ("green", "cross"), ("blue", "circle")}
)
RESERVED_OF = 8
"""One caption in this many is reserved for evaluation."""


@dataclass(frozen=True)
class Group:
    """``count`` (1 to 4) things of one color and one shape."""

    count: int
    color: str
    shape: str

    @property
    def caption(self) -> str:
        """For example ``two red hearts``."""
        word = _article(self.color) if self.count == 1 else COUNTS[self.count - 1]
        return f"{word} {self.color} {self.shape if self.count == 1 else _plural(self.shape)}"


@dataclass(frozen=True)
class Spec:
    """The claims of a caption; ``None`` means that the caption leaves the attribute open.

    One group of one thing may have a ``position``. Two groups (of one thing each, of different colors) may have a ``relation``: the
    first is ``relation`` the second.
    """

    groups: tuple[Group, ...]
    position: str | None = None
    relation: str | None = None
    tone: str | None = None
    texture: str | None = None

    @property
    def caption(self) -> str:
        """The only caption with these claims."""
        words = [self.groups[0].caption]
        if self.position:
            words.append(self.position)
        if len(self.groups) == 2:
            words += [self.relation or "and", self.groups[1].caption]
        if self.tone:
            words += ["on a", self.tone, *([self.texture] if self.texture else []), "background"]
        return " ".join(words)

    @property
    def kind(self) -> str:
        """One of :data:`KINDS`."""
        if len(self.groups) == 2:
            return "relation" if self.relation else "pair"
        if self.position:
            return "position"
        return "count" if self.groups[0].count > 1 else "single"

    @property
    def total(self) -> int:
        """Number of things in the scene."""
        return sum(group.count for group in self.groups)

    @property
    def novel(self) -> bool:
        """Whether a color and a shape occur together that do not occur together in any training scene."""
        return any((group.color, group.shape) in NOVEL_PAIRS for group in self.groups)

    @property
    def reserved(self) -> bool:
        """Whether the caption is in the hash bucket that is reserved for evaluation."""
        return zlib.crc32(self.caption.encode()) % RESERVED_OF == 0

    @property
    def for_training(self) -> bool:
        """Whether training may use this caption and its images."""
        return not (self.novel or self.reserved)


def parse(caption: str) -> Spec:
    """Returns the spec of a caption: ``parse(spec.caption) == spec``.

    Raises:
        ValueError: If the caption is not in the grammar of this module.
    """
    match = _CAPTION.fullmatch(caption)
    spec = _spec_of(match.groupdict()) if match else None
    # the expression accepts more than the grammar ("two red circle"): the caption of the spec must be the same text
    if spec is None or spec.caption != caption or not _consistent(spec):
        raise ValueError(
            f"{caption!r} is not a caption of the built-in world (rlr.toy.world.caption): "
            "write, for example, 'a red circle left of a blue square on a white striped background'."
        )
    return spec


def draw(rng: np.random.Generator, kind: str | None = None, naming: Sequence[float] = NAMING) -> Spec:
    """Returns a random spec of a kind (by default drawn by :data:`KIND_WEIGHTS`); ``naming`` is like :data:`NAMING`."""
    spec = _DRAW[kind or KINDS[rng.choice(len(KINDS), p=KIND_WEIGHTS)]](rng)
    named = int(rng.choice(3, p=naming))
    tone = _pick(rng, TONES) if named >= 1 else None
    return replace(spec, tone=tone, texture=_pick(rng, TEXTURES) if named == 2 else None)


def altered(spec: Spec, rng: np.random.Generator) -> dict[str, Spec]:
    """Returns copies of ``spec`` with exactly one claim changed: the hard negatives of an image of ``spec``.

    Returns:
        A spec for each of ``count``, ``color``, ``shape``, ``place`` (position or relation) and ``background`` that
        this spec claims.
    """
    which = int(rng.integers(len(spec.groups)))
    group, out = spec.groups[which], {}
    if spec.kind in ("single", "count"):
        out["count"] = _with(spec, which, count=_other(rng, (1, 2, 3, 4), group.count))
    taken = {g.color for g in spec.groups}
    out["color"] = _with(spec, which, color=_pick(rng, [c for c in COLORS if c not in taken]))
    out["shape"] = _with(spec, which, shape=_other(rng, SHAPES, group.shape))
    if spec.position:
        out["place"] = replace(spec, position=_other(rng, POSITIONS, spec.position))
    if spec.relation:
        out["place"] = replace(spec, relation=_other(rng, RELATIONS, spec.relation))
    if spec.texture and rng.integers(2):
        out["background"] = replace(spec, texture=_other(rng, TEXTURES, spec.texture))
    elif spec.tone:
        out["background"] = replace(spec, tone=_other(rng, TONES, spec.tone))
    return out


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _plural(shape: str) -> str:
    return shape + ("es" if shape.endswith("s") else "s")


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]


def _other(rng: np.random.Generator, options: Sequence[T], value: T) -> T:
    return _pick(rng, [option for option in options if option != value])


def _with(spec: Spec, which: int, **changes: object) -> Spec:
    groups = list(spec.groups)
    groups[which] = replace(groups[which], **changes)  # type: ignore[arg-type]
    return replace(spec, groups=tuple(groups))


def _single(rng: np.random.Generator) -> Spec:
    return Spec((Group(1, _pick(rng, COLORS), _pick(rng, SHAPES)),))


def _count(rng: np.random.Generator) -> Spec:
    return Spec((Group(int(rng.integers(2, 5)), _pick(rng, COLORS), _pick(rng, SHAPES)),))


def _pair(rng: np.random.Generator) -> Spec:
    first = _single(rng).groups[0]
    return Spec((first, Group(1, _other(rng, COLORS, first.color), _pick(rng, SHAPES))))


_DRAW = {
    "single": _single,
    "position": lambda rng: replace(_single(rng), position=_pick(rng, POSITIONS)),
    "count": _count,
    "pair": _pair,
    "relation": lambda rng: replace(_pair(rng), relation=_pick(rng, RELATIONS)),
}


def _one_of(words: Sequence[str]) -> str:
    return "|".join(words)


def _group_pattern(name: str) -> str:
    nouns = _one_of([*SHAPES, *map(_plural, SHAPES)])
    return rf"(?P<count{name}>an?|{_one_of(COUNTS[1:])}) (?P<color{name}>{_one_of(COLORS)}) (?P<shape{name}>{nouns})"


_CAPTION = re.compile(
    rf"{_group_pattern('0')}(?: (?P<position>{_one_of(POSITIONS)}))?"
    rf"(?: (?P<relation>and|{_one_of(RELATIONS)}) {_group_pattern('1')})?"
    rf"(?: on a (?P<tone>{_one_of(TONES)})(?: (?P<texture>{_one_of(TEXTURES)}))? background)?"
)
_SINGULAR = {name: shape for shape in SHAPES for name in (shape, _plural(shape))}


def _group_of(parts: dict[str, str | None], name: str) -> Group:
    count, color, noun = (parts[key + name] or "" for key in ("count", "color", "shape"))
    return Group(1 if count in ("a", "an") else COUNTS.index(count) + 1, color, _SINGULAR[noun])


def _spec_of(parts: dict[str, str | None]) -> Spec:
    names = ("0", "1") if parts["color1"] else ("0",)
    return Spec(
        tuple(_group_of(parts, name) for name in names),
        parts["position"],
        None if parts["relation"] == "and" else parts["relation"],
        parts["tone"],
        parts["texture"],
    )


def _consistent(spec: Spec) -> bool:
    alone = len(spec.groups) == 1
    single = all(group.count == 1 for group in spec.groups)
    distinct = len({group.color for group in spec.groups}) == len(spec.groups)
    return distinct and (alone or (single and spec.position is None)) and (single or spec.position is None)
