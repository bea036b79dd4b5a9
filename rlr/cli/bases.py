"""Configs that are laid over others: a mapping with ``base: FILE`` is what the file says, but for what it says itself."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, get_loader, set_loader
from yaml import YAMLError

KEY = "base"
"""What a mapping names its base by."""


def understand_bases(mode: str) -> None:
    """Lets configs that are parsed in a mode of jsonargparse have bases."""
    # some of its loaders are made when they are first needed
    parser = ArgumentParser(parser_mode=mode)
    parser.add_argument("--first", type=int)
    parser.parse_string("first: 1")
    load = get_loader(mode)
    # while a config is read, its folder is the working directory
    set_loader(mode, lambda text: over_bases(load(text), Path.cwd(), load), (YAMLError,))


def over_bases(value: Any, folder: Path, load: Callable[[str], Any]) -> Any:
    """Returns a value with all mappings in it laid over their bases.

    Args:
        value: What a config says.
        folder: What the names of its bases are relative to; those of a base's own bases are to the base's folder.
        load: Reads the text of a base.

    Raises:
        FileNotFoundError: If there is no such base.
    """
    if isinstance(value, list):
        return [over_bases(item, folder, load) for item in value]
    if not isinstance(value, dict):
        return value
    own = {key: over_bases(item, folder, load) for key, item in value.items()}
    name = own.get(KEY)
    if not (isinstance(name, str) and name.endswith(".yaml")):
        return own
    del own[KEY]
    return laid_over(_read(folder / name, load), own)


def laid_over(under: Any, upper: Any) -> Any:
    """Returns two values as one: mappings key by key, of anything else the upper one."""
    if not (isinstance(under, Mapping) and isinstance(upper, Mapping)):
        return upper
    both = {key: laid_over(under[key], upper[key]) for key in under.keys() & upper.keys()}
    return {**under, **upper, **both}


def _read(path: Path, load: Callable[[str], Any]) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"there is no config {path}, which another one names as its base; check the name")
    return over_bases(load(path.read_text(encoding="utf-8")), path.parent, load)
