"""The parser of configs and options, and the objects that their parts stand for."""

import os
from typing import Any, NoReturn

import jsonargparse
from lightning.pytorch.cli import LightningArgumentParser

from rlr.cli import TRACEBACK
from rlr.cli.class_changes import drop_arguments_with_their_class
from rlr.cli.config_inheritance import read_bases
from rlr.cli.error_messages import explain

# `${model.init_args.x}` then means the same under `fit` as in the file, and command-line overrides are seen by it
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

MODE = "omegaconf+"
"""How configs are read: as YAML, whose interpolations are resolved once all is parsed."""

read_bases(MODE)
drop_arguments_with_their_class()


class Parser(LightningArgumentParser):
    """Reports a mistake in one sentence instead of the usage of two hundred options."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:
            super().error(message, ex)
        if os.environ.get(TRACEBACK) and ex is not None:
            raise ex
        self.exit(2, f"error: {explain(message, self._options())}\n")
        raise AssertionError("exit returns no more")

    def _options(self) -> list[str]:
        parsers = (
            [self, *getattr(self._subcommands_action, "choices", {}).values()] if self._subcommands_action else [self]
        )
        return sorted({action.dest for parser in parsers for action in parser._actions})


def build(value: Any, base: type, place: str) -> Any:
    """Returns the object that a part of a parsed config stands for.

    Raises:
        ValueError: If it does not exist.
    """
    if value is None:
        raise ValueError(
            f"{place}: expected an object of a class of {base.__name__}, got null; use the config of the training"
        )
    parser = Parser(parser_mode=MODE, exit_on_error=False)
    parser.add_subclass_arguments(base, "object")
    return parser.instantiate_classes(parser.parse_object({"object": value})).object
