"""The config of a run as its sources give it: config files and options merged, before any class is imported."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlr.cli.class_changes import ARGUMENTS
from rlr.cli.config_inheritance import Part, merge, with_bases, with_parts
from rlr.io.config_files import SUFFIXES, ConfigError, parse_config, read_config

CONFIG = ("config", "c")
"""The options that name a config file."""

FLAGS = ("help", "h", "print_config")
"""The options that may stand without a value."""


@dataclass(frozen=True)
class Option:
    """An option of the command line.

    Args:
        name: Its name without dashes.
        text: Its value, as written; ``None`` where none follows.
        append: Whether the value is appended to a list, as in ``--trainer.callbacks+=EMA``.
    """

    name: str
    text: str | None
    append: bool = False


def read_options(arguments: Sequence[str]) -> Iterator[Option]:
    """Yields the options among the arguments of a command.

    Raises:
        ConfigError: If an argument is no option.
    """
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("-"):
            raise ConfigError(f"expected an option such as --config FILE, found {argument!r}; options start with --")
        name, sign, text = argument.partition("=")
        append = name.endswith("+")
        name = name.removesuffix("+").lstrip("-")
        # the class after --model.help may be left out, and an option may follow
        flag = name.split(".")[-1] in FLAGS and not (waiting and not waiting[0].startswith("-"))
        yield Option(name, text if sign else None if flag or not waiting else waiting.pop(0), append)


Source = tuple[Option, Any]
"""An option and the value that it stands for."""


def read_sources(options: Iterable[Option]) -> list[Source]:
    """Returns the sources of a config in their order: the options but for flags, config files read.

    Raises:
        ConfigError: If a file cannot be used.
    """
    return [
        (option, _read(option) if option.name in CONFIG else parse_value(option.text))
        for option in options
        if option.name.split(".")[-1] not in FLAGS
    ]


def draft(sources: Iterable[Source]) -> dict[str, Any]:
    """Returns the config that the sources give together, a later one over an earlier one."""
    found: dict[str, Any] = {}
    for option, value in sources:
        names = [] if option.name in CONFIG else option.name.split(".")
        found = _set(found, names, value, option.append)
    return found


def texts_of(sources: Iterable[Source]) -> set[str]:
    """Returns every text in the sources of a config, those included that a later source replaces."""
    return {text for _, value in sources for text in _texts(value)}


def _texts(value: Any) -> Iterator[str]:
    value = value.load() if isinstance(value, Part) else value
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def parse_value(text: str | None) -> Any:
    """Returns the value that an option stands for: YAML, the name of a config file, or else the text itself."""
    if text is None:
        return None
    try:
        value = parse_config(text, "the command line")
    except ConfigError as error:
        if isinstance(error.__cause__, yaml.YAMLError):
            return text
        raise
    # YAML reads `a: b` as a mapping, as jsonargparse does, and an empty text as null, which it does not
    return with_parts(value if text.strip() else text, Path.cwd())


def _read(option: Option) -> dict[str, Any]:
    if option.text is None:
        raise ConfigError(f"--{option.name}: expected the name of a config file, found nothing; name one")
    path = Path(option.text)
    if not path.exists() and not option.text.endswith((*SUFFIXES, ".json")):
        # jsonargparse reads a config given as text, too
        value = parse_value(option.text)
        if isinstance(value, dict):
            return value
    return with_parts(with_bases(read_config(path), path.parent, chain=(path.resolve(),)), path.parent)


def _set(value: Any, names: Sequence[str], new: Any, append: bool) -> Any:
    """Returns a value with the one at the end of a way down replaced; ``init_args`` may be left out on the way."""
    if not names:
        listed = [] if value is None else value if isinstance(value, list) else [value]
        return [*listed, *(new if isinstance(new, list) else [new])] if append else merge(value, new)
    if isinstance(value, Part):
        value = value.load()
    if isinstance(value, list):  # options speak of the last object of a list
        return [*value[:-1], _set(value[-1] if value else None, names, new, append)]
    if isinstance(value, str):
        value = {"class_path": value}
    value = value if isinstance(value, dict) else {}
    if "class_path" in value and names[0] not in ("class_path", *ARGUMENTS):
        names = ["init_args", *names]
    return (
        merge(value, {names[0]: new})
        if len(names) == 1 and not append
        else {**value, names[0]: _set(value.get(names[0]), names[1:], new, append)}
    )
