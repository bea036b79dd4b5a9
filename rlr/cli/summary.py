"""What a command is going to do, in one line of plain words."""

import inspect
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonargparse._util import import_object

from rlr.cli.config_parts import arguments_of, class_of

LONGEST = 40
"""The most characters of a value."""


def summary(config: Mapping[str, Any], command: str, folder: Path) -> str:
    """Returns estimator, model, reward, sampler, batch, learning rate, updates and folder of a parsed config.

    Of each object the class, its first argument and the arguments that differ from their defaults are shown, such as
    ``RLR(length 4, half_weight 0.01) on StableDiffusion(path stable-diffusion-v1-4)``.

    Args:
        config: The config of the command.
        command: The command.
        folder: The folder of the run.
    """
    arguments = arguments_of(config["model"])
    model, guidance = _without_guidance(arguments.get("model"))
    estimator = arguments.get("estimator")
    parts = [
        f"{_words(estimator)} on {_words(model)}"
        if estimator and command == "fit"
        else _words(model or config["model"]),
        *(_words(arguments[name]) for name in ("reward",) if arguments.get(name)),
        ", ".join(filter(None, [_words(arguments["sampler"]) if arguments.get("sampler") else "", guidance])),
        *(_training(config, arguments) if command == "fit" else ()),
        str(folder),
    ]
    return " · ".join(filter(None, parts))


def _training(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Iterator[str]:
    optimization = arguments.get("optimization") or {}
    batch = arguments_of(config.get("data")).get("batch_size")
    if batch:
        rounds = optimization.get("accumulate", 1)
        yield f"batch {batch}{f' × {rounds}' if rounds != 1 else ''}"
    if optimization.get("optimizer"):
        yield _words(optimization["optimizer"])
    elif "lr" in optimization:
        yield f"lr {optimization['lr']:g}"
    if config["trainer"]["max_steps"] > 0:
        updates = config["trainer"]["max_steps"]
        yield f"{updates} update{'s'[: updates != 1]}"


def _without_guidance(model: Any) -> tuple[Any, str]:
    """Returns the model inside a guidance, and the words for the guidance."""
    arguments = arguments_of(model)
    if not isinstance(arguments.get("scale"), int | float) or not arguments.get("model"):
        return model, ""
    negative = f" away from {arguments['negative']!r}" if arguments.get("negative") else ""
    return arguments["model"], f"guidance {arguments['scale']:g}{negative}"


def _words(value: Any) -> str:
    """Returns the words for a value: of an object its class and the arguments that differ from their defaults."""
    kind = class_of(value)
    if kind is None:
        return _value(value)
    defaults = _defaults(value["class_path"])
    first = next(iter(defaults), None)
    shown = [
        _argument(name, item)
        for name, item in arguments_of(value).items()
        # what an object is made of stands first, such as the length of a chain or the name of a model
        if (name == first and isinstance(item, int | float | str) and not isinstance(item, bool))
        or not _same(item, defaults.get(name, inspect.Parameter.empty))
    ]
    return kind + (f"({', '.join(shown)})" if shown else "")


def _defaults(path: str) -> dict[str, Any]:
    """Returns the defaults of the arguments, those that a class passes on to the next one included."""
    kind = import_object(path)
    defaults: dict[str, Any] = {}
    for one in inspect.getmro(kind) if isinstance(kind, type) else (kind,):
        parameters = inspect.signature(one).parameters.values()
        defaults = {p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD} | defaults
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return defaults


def _same(value: Any, default: Any) -> bool:
    plain = isinstance(value, str | int | float | bool | None) or isinstance(default, str | int | float | bool | None)
    return value == default if plain else _words(value) == _words(default)


def _argument(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no {name}"
    if class_of(value):
        return _words(value)
    return f"{name} {_words(value)}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(_argument(name, item) for name, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_words, value))}]" if len(value) <= 4 else f"{len(value)} values"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, str) and "/" in value:
        # of a path or a name on the hub, the last part says what it is
        return value.rstrip("/").rpartition("/")[2]
    if inspect.isroutine(value):
        return f"{value.__module__}.{value.__qualname__}"
    text = "null" if value is None else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
