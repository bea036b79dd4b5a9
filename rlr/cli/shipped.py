"""The configs that come with the package, by name."""

from collections.abc import Sequence
from pathlib import Path

from rlr.cli.error_messages import nearest
from rlr.io.config_files import ConfigError

MARK = "@"
"""What the name of a shipped config begins with on a command line."""
FIRST = "image"
"""The folder whose config is meant where several have one of a name."""


def folder() -> Path:
    """Returns the folder of the configs: in the package, or in a checkout of the repository beside it."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def shipped(name: str) -> Path:
    """Returns a config by its name, such as ``tiny_rlr`` or ``video/tiny_rlr``.

    Raises:
        ConfigError: If there is no config of this name.
    """
    files = {str(file.relative_to(folder()).with_suffix("")): file for file in sorted(folder().rglob("*.yaml"))}
    # images last, so that their names stand
    order = sorted(files, key=lambda known: known.startswith(f"{FIRST}/"))
    short = {known.rpartition("/")[2]: files[known] for known in order if "/parts/" not in known}
    found = files.get(name) or short.get(name)
    if found is None:
        raise ConfigError(f"there is no shipped config {MARK}{name}; {nearest(name, [*short, *files])}")
    return found


def with_shipped(arguments: Sequence[str]) -> list[str]:
    """Returns a command line with the paths of shipped configs: ``fit @NAME``, ``--config @NAME`` or ``--config=@NAME``.

    Raises:
        ConfigError: If there is no such config.
    """
    words: list[str] = []
    for position, word in enumerate(arguments):
        option, sign, value = word.partition("=")
        if word.startswith(MARK):
            named = ["--config"] if position and not _is_config(arguments[position - 1]) else []
            words += [*named, str(shipped(word[1:]))]
        elif sign and _is_config(option) and value.startswith(MARK):
            words.append(f"{option}={shipped(value[1:])}")
        else:
            words.append(word)
    return words


def _is_config(option: str) -> bool:
    return option in ("--config", "-c")
