"""Inheritance of configs: a mapping with ``base: FILE`` holds what the file holds, except for what it sets itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader
from yaml import YAMLError

from rlr.cli.class_changes import ARGUMENTS

KEY = "base"
"""The key by which a mapping names its base."""


def read_bases(mode: str) -> None:
    """Makes jsonargparse read the bases of configs that are parsed in one of its modes."""
    # jsonargparse creates some of its loaders on first use
    parser = ArgumentParser(parser_mode=mode)
    parser.add_argument("--first", type=int)
    parser.parse_string("first: 1")
    load = get_loader(mode)
    # jsonargparse changes into the folder of a config while it reads the config
    set_loader(mode, lambda text: with_bases(load(text), Path.cwd(), load), (YAMLError,))


def with_bases(value: Any, folder: Path, load: Callable[[str], Any]) -> Any:
    """Returns a value with every mapping in it merged over its base.

    Args:
        value: A value of a config.
        folder: The folder that the names of bases are relative to; the bases of a base are relative to its own folder.
        load: Parses the text of a base.

    Raises:
        FileNotFoundError: If a base does not exist.
    """
    if isinstance(value, list):
        return [with_bases(item, folder, load) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: with_bases(item, folder, load) for key, item in value.items()}
    name = own.get(KEY)
    if not (isinstance(name, str) and name.endswith(".yaml")):
        return own
    del own[KEY]
    return merge(_read(folder / name, load), own)


def merge(under: Any, upper: Any) -> Any:
    """Returns ``upper`` merged over ``under``: mappings key by key, any other value replaced.

    The arguments of an object are dropped when ``upper`` names another class for it, and kept when ``upper`` names its class alone.
    """
    if isinstance(under, Mapping) and isinstance(upper, str) and _same_class(under.get("class_path"), upper):
        return under
    if not (isinstance(under, Mapping) and isinstance(upper, Mapping)):
        return upper
    if "class_path" in upper and "class_path" in under and not _same_class(under["class_path"], upper["class_path"]):
        under = {key: value for key, value in under.items() if key not in ARGUMENTS}
    both = {key: merge(under[key], upper[key]) for key in under.keys() & upper.keys()}
    return {**under, **upper, **both}


def _same_class(one: Any, two: Any) -> bool:
    """Tells whether two names stand for one class: equal, or one of them the short name of the other."""
    if not (isinstance(one, str) and isinstance(two, str)):
        return one == two
    short = "." not in one or "." not in two
    return one == two or (short and one.rpartition(".")[2] == two.rpartition(".")[2])


def _read(path: Path, load: Callable[[str], Any]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}, which another one names as its base; check the name")
    return with_bases(load(path.read_text(encoding="utf-8")), path.parent, load)
