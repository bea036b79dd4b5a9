"""Inheritance of configs: a mapping with ``base: FILE`` holds what the file holds, except for what it sets itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader
from yaml import YAMLError

from rlr.cli.class_changes import ARGUMENTS
from rlr.io.config_files import SUFFIXES, ConfigError, expand_home, read_config, read_text

KEY = "base"
"""The key by which a mapping names its base."""


def read_bases(mode: str) -> None:
    """Makes jsonargparse read the bases of configs that are parsed in one of its modes."""
    # jsonargparse creates some of its loaders on first use
    parser = ArgumentParser(parser_mode=mode)
    parser.add_argument("--first", type=int)
    parser.parse_string("first: 1")
    load = get_loader(mode)

    def load_text(text: str) -> Any:
        return expand_home(load(text))

    # jsonargparse changes into the folder of a config while it reads the config
    set_loader(
        mode,
        lambda text: with_bases(load_text(text), Path.cwd(), lambda path: load_text(read_text(path))),
        (YAMLError,),
    )


def with_bases(
    value: Any, folder: Path, read: Callable[[Path], Any] = read_config, chain: tuple[Path, ...] = ()
) -> Any:
    """Returns a value with every mapping in it merged over its base.

    Args:
        value: A value of a config.
        folder: The folder that the names of bases are relative to; the bases of a base are relative to its own folder.
        read: Reads the file of a base.
        chain: The files that led to this value, each the base of the one before.

    Raises:
        ConfigError: If a base does not exist, or is among its own bases.
    """
    if isinstance(value, list):
        return [with_bases(item, folder, read, chain) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: with_bases(item, folder, read, chain) for key, item in value.items()}
    name = own.get(KEY)
    if not (isinstance(name, str) and name.endswith(SUFFIXES)):
        return own
    del own[KEY]
    return _without_parts(merge(_base(folder / name, read, chain), own))


@dataclass(frozen=True)
class Part:
    """The name of a config file in the place of an object.

    Args:
        text: The name, as written.
        path: The file.
    """

    text: str
    path: Path

    def load(self) -> Any:
        """Returns what the file holds."""
        return with_parts(with_bases(read_config(self.path), self.path.parent), self.path.parent)


def _without_parts(value: Any) -> Any:
    """Returns a value with the absolute name of its file in the place of each :class:`Part`."""
    if isinstance(value, dict):
        return {key: _without_parts(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_parts(item) for item in value]
    return str(value.path.absolute()) if isinstance(value, Part) else value


def with_parts(value: Any, folder: Path) -> Any:
    """Returns a value with each text in it that names a config file in ``folder`` as a :class:`Part`."""
    if isinstance(value, dict):
        return {key: with_parts(item, folder) for key, item in value.items()}
    if isinstance(value, list):
        return [with_parts(item, folder) for item in value]
    named = isinstance(value, str) and value.endswith(SUFFIXES) and (folder / value).is_file()
    return Part(value, folder / value) if named else value


def merge(under: Any, upper: Any) -> Any:
    """Returns ``upper`` merged over ``under``: mappings key by key, any other value replaced.

    The arguments of an object are dropped when ``upper`` names another class for it, and kept when ``upper`` names its class alone.
    """
    if isinstance(under, Part) and isinstance(upper, Mapping | Part | str):
        under = under.load()
    if isinstance(under, Mapping) and isinstance(upper, str) and _same_class(under.get("class_path"), upper):
        return under
    if isinstance(under, Mapping) and isinstance(upper, Part):
        upper = upper.load()
    if not (isinstance(under, Mapping) and isinstance(upper, Mapping)):
        return upper
    if "class_path" in upper and "class_path" in under and not _same_class(under["class_path"], upper["class_path"]):
        under = {key: value for key, value in under.items() if key not in ARGUMENTS}
    both = {key: merge(under[key], upper[key]) for key in under.keys() & upper.keys()}
    return {**under, **upper, **both}


def _same_class(one: Any, two: Any) -> bool:
    """Returns whether two names stand for one class: equal, or one of them the short name of the other."""
    if not (isinstance(one, str) and isinstance(two, str)):
        return one == two
    short = "." not in one or "." not in two
    return one == two or (short and one.rpartition(".")[2] == two.rpartition(".")[2])


def _base(path: Path, read: Callable[[Path], Any], chain: tuple[Path, ...]) -> Any:
    """Returns what the file of a base holds, its own bases included; the parts that it names are relative to its folder."""
    file = path.resolve()
    if file in chain:
        names = " -> ".join(str(item) for item in (*chain[chain.index(file) :], file))
        raise ConfigError(f"{path}: a config cannot be its own base: {names}; remove one of these bases")
    if not path.is_file():
        raise ConfigError(f"there is no config {path}, which another config names as its base; check the name")
    return with_parts(with_bases(read(path), path.parent, read, (*chain, file)), path.parent)
