"""What options and further configs change of the first config of a command: ``fit --config A --model.estimator B --diff``."""

import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from typing import Any

import yaml

from rlr.cli.draft_config import CONFIG, read_options
from rlr.io.config_files import ConfigError
from rlr.records.groups import flat

DIFF = "--diff"
"""The option that states the difference, and runs nothing."""
NOTHING = "–"
"""What stands for a setting that one of the two does not have."""


def difference(arguments: Sequence[str], run: Callable[[Sequence[str]], Any]) -> str:
    """Returns the settings that differ, a line each, such as ``model.estimator: rlr.HalfOrderRLR → rlr.RLR``.

    Args:
        arguments: The command line, without the option.
        run: Runs a command line; with ``--print_config`` it prints the config and exits.

    Raises:
        ConfigError: If there is no config to compare with.
    """
    command, *rest = arguments
    files = [option.text for option in read_options(rest) if option.name in CONFIG and option.text]
    if not files:
        raise ConfigError(f"{DIFF}: expected a config to compare with, found none; set --config FILE")
    before, after = (flat(_resolved(words, run)) for words in ([command, f"--config={files[0]}"], arguments))
    names = [name for name in dict.fromkeys([*after, *before]) if before.get(name, NOTHING) != after.get(name, NOTHING)]
    found = [f"{name}: {_formatted(before, name)} → {_formatted(after, name)}" for name in names]
    return "\n".join(found) or f"nothing differs from {files[0]}"


def _resolved(words: Sequence[str], run: Callable[[Sequence[str]], Any]) -> Any:
    """Returns the whole config of a command; a mistake in it ends the process, as always."""
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            run([*words, "--print_config"])
    except SystemExit as left:
        if left.code:
            raise
    return yaml.safe_load(printed.getvalue())


def _formatted(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name, NOTHING)
    return "null" if value is None else str(value)
