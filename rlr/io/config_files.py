"""Config files as they are read: text in UTF-8 that is YAML, with each key once, of bounded depth and size.

Whatever is wrong with a file is a :class:`ConfigError` that names the file, the line and what to do.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

MAX_DEPTH = 100
"""How deep values in a config may be nested."""

MAX_NODES = 100_000
"""How many values a config may hold once its aliases are expanded."""

SUFFIXES = (".yaml", ".yml")
"""How the names of config files end."""


class ConfigError(ValueError):
    """A config file that cannot be used, in one sentence."""


def read_config(path: Path) -> dict[str, Any]:
    """Reads a config file.

    Args:
        path: The file.

    Raises:
        ConfigError: If the file does not exist, is not text, not YAML or not a mapping, or holds a key twice.
    """
    value = parse_config(read_text(path), str(path))
    if value is None:
        raise ConfigError(
            f"{path}: expected a config, found an empty file; write at least the keys model and data into it"
        )
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: expected a mapping with keys such as model and data, found a {type(value).__name__}; write KEY: VALUE"
        )
    return value


def read_text(path: Path) -> str:
    """Returns the text of a config file.

    Raises:
        ConfigError: If the file does not exist, cannot be read, or is not UTF-8.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: expected a config file, found a folder; name a file in it")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(f"there is no config {path}; check the path (it is relative to {Path.cwd()})") from None
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); check the path and its permissions") from error
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        wide = "UTF-32" if content.startswith(b"\xff\xfe\0\0") else "UTF-16"
        raise ConfigError(f"{path}: line 1: expected text in UTF-8, found {wide}; save the file as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}"
        raise ConfigError(
            f"{path}: line {line}: expected text in UTF-8, found {found}; save the file as UTF-8"
        ) from None
    if (sign := re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]", text)) is not None:
        line = text.count("\n", 0, sign.start()) + 1
        raise ConfigError(
            f"{path}: line {line}: expected text, found the control character {sign[0]!r}; is this a config? remove the character"
        )
    return text


def parse_config(text: str, origin: str) -> Any:
    """Parses the text of a config.

    Args:
        text: The text.
        origin: What messages call the place that it comes from.

    Raises:
        ConfigError: If the text is not YAML, holds a key twice in one mapping, or is too deep or too large.
    """
    from jsonargparse._loaders_dumpers import get_yaml_default_loader

    loader = get_yaml_default_loader()
    try:
        for _ in _checked(yaml.parse(text, Loader=loader), origin):
            pass
        return expand_home(yaml.load(text, Loader=loader))
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: {_syntax(error, text)}") from error
    except ConfigError:
        raise
    # a date that does not exist, or a number of more digits than Python reads
    except ValueError as error:
        raise ConfigError(f"{origin}: expected YAML, found a value that is not valid ({error}); correct it") from error


def expand_home(value: Any) -> Any:
    """Returns a value with ``~/`` at the start of each text in it replaced by the home folder."""
    if isinstance(value, dict):
        return {key: expand_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [expand_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) and (value == "~" or value.startswith("~/")) else value


def expand_home_in_option(argument: str) -> str:
    """The same for an argument of the command line, ``VALUE`` or ``--NAME=VALUE``."""
    name, sign, value = argument.partition("=") if argument.startswith("-") else ("", "", argument)
    return f"{name}{sign}{expand_home(value)}"


def _checked(events: Iterator[yaml.Event], origin: str) -> Iterator[yaml.Event]:
    """Yields the events of a document and raises at the first that is refused, before anything is built from it."""
    keys: list[dict[str, int] | None] = []  # of each open mapping the keys so far and their lines, None of a list
    is_key: list[bool] = []  # of each open mapping whether a key comes next
    starts: list[
        tuple[str | None, int]
    ] = []  # of each open collection its anchor and how many nodes there were before it
    sizes: dict[str, int] = {}
    nodes = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.NodeEvent):
            if isinstance(event, yaml.AliasEvent) and event.anchor in [anchor for anchor, _ in starts]:
                raise ConfigError(
                    f"{origin}: line {line}: the alias *{event.anchor} stands inside its own anchor; write the value out"
                )
            nodes += sizes.get(event.anchor, 1) if isinstance(event, yaml.AliasEvent) else 1
            if is_key and keys[-1] is not None:
                if is_key[-1] and isinstance(event, yaml.ScalarEvent):
                    _check_key(event.value, keys[-1], line, origin)
                is_key[-1] = not is_key[-1]
        if nodes > MAX_NODES or len(keys) > MAX_DEPTH:
            what = f"more than {MAX_NODES} values" if nodes > MAX_NODES else f"more than {MAX_DEPTH} levels"
            raise ConfigError(f"{origin}: line {line}: expected a config, found {what}; remove aliases or nesting")
        if isinstance(event, yaml.CollectionStartEvent):
            mapping = isinstance(event, yaml.MappingStartEvent)
            keys.append({} if mapping else None)
            is_key.append(mapping)
            starts.append((event.anchor, nodes - 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = starts.pop()
            keys.pop()
            is_key.pop()
            if anchor:
                sizes[anchor] = nodes - before
        yield event


def _check_key(key: str, seen: dict[str, int], line: int, origin: str) -> None:
    if key in seen and key != "<<":
        raise ConfigError(
            f"{origin}: line {line}: the key {key!r} is set a second time, after line {seen[key]}; remove one of them"
        )
    seen[key] = line


def _syntax(error: yaml.YAMLError, text: str) -> str:
    """Returns where a text is not YAML, and why."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if mark is None:
        return f"expected YAML: {problem}; correct it"
    line = (text.splitlines()[mark.line : mark.line + 1] or [""])[0]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"line {mark.line + 1}: expected spaces, found a tab; indent with spaces"
    return f"expected YAML: {problem} at line {mark.line + 1}, column {mark.column + 1}; correct it there"
