"""What an estimator is made of."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn


def parts(whole: object) -> Iterator[object]:
    """Yields an object and, depth first, all that it is made of, each once; of modules such as a reward the whole alone."""
    seen: dict[int, object] = {}
    waiting = [whole]
    while waiting:
        part = waiting.pop()
        if id(part) not in seen:
            # the object is kept, because another one may have its id otherwise
            seen[id(part)] = part
            yield part
            waiting.extend(reversed(_inner(part)))


def _inner(part: object) -> list[object]:
    if isinstance(part, Mapping):
        return list(part.values())
    if isinstance(part, list | tuple):
        return list(part)
    return list(vars(part).values()) if has_settings(part) else []


def has_settings(part: object) -> bool:
    """Whether an object is made of attributes, such as an estimator, and is no number, class, function or module."""
    return (
        hasattr(part, "__dict__") and type(part).__module__ != "builtins" and not isinstance(part, nn.Module | Tensor)
    )
