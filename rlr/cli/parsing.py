"""The parser of configs, the objects that they stand for, and the mistakes in them; what libraries print besides is silenced."""

import logging
import os
from typing import Any, NoReturn

import diffusers
import huggingface_hub
import jsonargparse
import transformers
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from rlr.cli.class_changes import drop_arguments_with_their_class
from rlr.cli.config_inheritance import read_bases
from rlr.cli.error_messages import explain

# `${model.init_args.x}` then means the same under `fit` as in the file, and command-line overrides are seen by it
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

MODE = "omegaconf+"
"""How configs are read: as YAML, whose interpolations are resolved once all is parsed."""

read_bases(MODE)
drop_arguments_with_their_class()

TRACEBACK = "RLR_TRACEBACK"
"""The environment variable that, when set, shows where a mistake was noticed."""

ERRORS = (ValueError, OSError, FloatingPointError, MisconfigurationException)
"""What is raised for a mistake of the user; anything else is a fault of the program, and keeps its traceback."""


# Lightning's advertisements, and facts about devices that the user chose; its warnings stay
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# the line of progress takes the place of bars for each file of a model
transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()
# both hide the bars of downloads as well, which may take an hour
huggingface_hub.utils.enable_progress_bars()


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


def cause(error: BaseException) -> BaseException:
    """Returns the error that our code raised, where jsonargparse has wrapped it in its own."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def is_mistake(error: BaseException) -> bool:
    """Whether an error is one of the user: one of ours, or of a callback of Lightning, such as of a monitor that is not logged."""
    callback = isinstance(error, RuntimeError) and _raised_in(error).startswith("lightning.pytorch.callbacks")
    return callback or isinstance(error, ERRORS)


def _raised_in(error: BaseException) -> str:
    """Returns the module in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
