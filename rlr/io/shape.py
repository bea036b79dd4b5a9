"""What plain data of a file must look like, checked before anything relies on it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shape = Any
"""A class, such as ``str``; a tuple of shapes, one of which must fit; ``None``; ``[shape]``, a list; ``{key: shape}``, a mapping in
which other keys may stand and these may be missing; ``{str: shape}``, a mapping from texts; or an :class:`Is`."""


@dataclass(frozen=True)
class Is:
    """A shape that a function decides.

    Args:
        words: What it is called, for messages.
        fits: Returns whether a value has it.
    """

    words: str
    fits: Callable[[Any], bool]


def is_number(value: Any) -> bool:
    """Whether a value is a number that fits into a float, and no boolean."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and float(value) == float(value)
    except OverflowError:
        return False


NUMBER = Is("a number", is_number)


def misfit(value: Any, shape: Shape, place: str = "") -> str | None:
    """Returns what is expected at the first place that does not fit, in words, or None if all does."""
    if isinstance(shape, list) and isinstance(value, list):
        return _first((item, shape[0], f"{place}[{number}]") for number, item in enumerate(value))
    if isinstance(shape, dict) and isinstance(value, Mapping):
        return (
            _first((item, shape[str], _key(place, key)) for key, item in value.items())
            if str in shape
            else _first((value[key], inner, _key(place, key)) for key, inner in shape.items() if key in value)
        )
    if isinstance(shape, tuple):
        fits = any(misfit(value, one) is None for one in shape)
        # the last one is what is usual
        return None if fits else misfit(value, shape[-1], place)
    if isinstance(shape, Is):
        return None if shape.fits(value) else f"{shape.words}{_at(place)}"
    if isinstance(shape, type) and isinstance(value, shape) and (shape is bool or not isinstance(value, bool)):
        return None
    if shape is None and value is None:
        return None
    return f"{_words(shape)}{_at(place)}"


def check_shape(value: Any, shape: Shape, origin: str, remedy: str) -> None:
    """Raises unless a value fits a shape.

    Args:
        value: The value.
        shape: What it must look like.
        origin: Where it comes from, for the message.
        remedy: What to do.

    Raises:
        ValueError: If it does not fit.
    """
    expected = misfit(value, shape)
    if expected is not None:
        raise ValueError(f"{origin}: expected {expected}, found something else; {remedy}")


def _first(cases: Any) -> str | None:
    return next((found for case in cases if (found := misfit(*case)) is not None), None)


def _key(place: str, key: object) -> str:
    return f"{place}.{key}".lstrip(".")[-80:]


def _at(place: str) -> str:
    return f" as {place}" if place else ""


def _words(shape: Shape) -> str:
    names = {str: "a text", list: "a list", dict: "a mapping", bool: "true or false", int: "an integer"}
    if shape is None:
        return "null"
    return names.get(shape if isinstance(shape, type) else type(shape), getattr(shape, "__name__", "another value"))
