"""The content of a video: a :class:`VideoSpec` is a :class:`~rlr.toy.world.caption.Spec` and a motion of all its things.

The grammar, with ``[...]`` optional::

    caption = things motion [background]
    motion  = "moving" direction [speed] | "growing" | "shrinking" | "standing still"

``things`` and ``background`` are those of :mod:`rlr.toy.world.caption`, without positions and relations, which a motion would
change, and with at most three things, because they need room for the motion.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlr.toy.world.caption import Spec, draw, parse

DIRECTIONS = ("left", "right", "up", "down")
SPEEDS = ("slowly", "quickly")
SIZES = ("growing", "shrinking")
STILL = "standing still"
VIDEO_KINDS = ("single", "count", "pair")
VIDEO_KIND_WEIGHTS = (0.5, 0.25, 0.25)
MOST = 3


@dataclass(frozen=True)
class Motion:
    """``direction`` with or without ``speed``, or ``size``; without any of them, standing still."""

    direction: str | None = None
    speed: str | None = None
    size: str | None = None

    @property
    def caption(self) -> str:
        """For example ``moving left quickly``."""
        if self.direction:
            return " ".join(["moving", self.direction, *([self.speed] if self.speed else [])])
        return self.size or STILL


MOTIONS = (
    *(Motion(direction, speed) for direction in DIRECTIONS for speed in (None, *SPEEDS)),
    *(Motion(size=size) for size in SIZES),
    Motion(),
)
"""Every motion of the grammar."""
_BY_CAPTION = {motion.caption: motion for motion in MOTIONS}
_PHRASE = re.compile("|".join(sorted((f" {phrase}" for phrase in _BY_CAPTION), key=len, reverse=True)))
_BACKGROUND = re.compile(r"(?: on a \w+(?: \w+)? background)?$")


@dataclass(frozen=True)
class VideoSpec:
    """The claims of a video's caption: the content of each frame, and the motion."""

    spec: Spec
    motion: Motion

    @property
    def caption(self) -> str:
        """The only caption with these claims."""
        return insert(self.spec.caption, self.motion.caption)

    @property
    def for_training(self) -> bool:
        """Whether training may use this caption; the split is that of image captions."""
        return self.spec.for_training


def insert(caption: str, phrase: str) -> str:
    """Returns the caption with a phrase between its things and its background."""
    return _BACKGROUND.sub(lambda match: f" {phrase}{match.group()}", caption, count=1)


def parse_video(caption: str) -> VideoSpec:
    """Returns the :class:`VideoSpec` of a caption: ``parse_video(clip.caption) == clip``.

    Raises:
        ValueError: If the caption is not in the grammar of this module.
    """
    match = _PHRASE.search(caption)
    try:
        if match is None:
            raise ValueError
        spec = parse(caption[: match.start()] + caption[match.end() :])
        clip = VideoSpec(spec, _BY_CAPTION[match.group().strip()])
        if spec.kind not in VIDEO_KINDS or spec.total > MOST or clip.caption != caption:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{caption!r} is not a caption of the built-in world's videos (rlr.toy.world.motion): "
            "write, for example, 'two red circles moving left slowly on a black background'."
        ) from None
    return clip


def draw_video_spec(rng: np.random.Generator, naming: Sequence[float]) -> VideoSpec:
    """Returns a random clip from the whole grammar; ``naming`` is like :data:`rlr.toy.world.caption.NAMING`."""
    kind = VIDEO_KINDS[rng.choice(len(VIDEO_KINDS), p=VIDEO_KIND_WEIGHTS)]
    while (spec := draw(rng, kind, naming)).total > MOST:
        pass
    return VideoSpec(spec, draw_motion(rng))


def draw_motion(rng: np.random.Generator) -> Motion:
    """Returns a random motion; two thirds of them have a direction."""
    if rng.random() < 2 / 3:
        speed = (None, *SPEEDS)[rng.integers(len(SPEEDS) + 1)]
        return Motion(DIRECTIONS[rng.integers(len(DIRECTIONS))], speed)
    return (*(Motion(size=size) for size in SIZES), Motion())[rng.integers(len(SIZES) + 1)]
