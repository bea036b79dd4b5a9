"""What a command does once its arguments have been checked: the parser, and LightningCLI with the defaults of this library."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import MisconfigurationException, SIGTERMException

from rlr.callbacks import EMA, Checkpointing, Evaluation, PredictionWriter, SafeCheckpointIO, UnusedAverage
from rlr.cli.card import card_of
from rlr.cli.class_changes import drop_arguments_with_their_class
from rlr.cli.config_inheritance import read_bases
from rlr.cli.draft_config import CONFIG, read_options
from rlr.cli.error_messages import explain
from rlr.cli.export import check_empty, choose, export
from rlr.cli.settings import check_settings
from rlr.cli.static_check import COMMANDS, EXPORT
from rlr.data import PromptData
from rlr.models import DiffusionModel
from rlr.models.export import Exporter
from rlr.modules import Alignment

# `${model.init_args.x}` then means the same under `fit` as in the file, and command-line overrides are seen by it
jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)

MODE = "omegaconf+"
"""How configs are read: as YAML, whose interpolations are resolved once all is parsed."""

read_bases(MODE)
drop_arguments_with_their_class()

TRACEBACK = "RLR_TRACEBACK"
"""The environment variable that, when set, shows where a mistake was noticed."""

DEFAULTS: dict[str, Any] = {
    "default_root_dir": "runs",
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    # what is cached in validation (encoded prompts) must be able to take part in training
    "inference_mode": False,
}
"""Where our defaults of the trainer differ from Lightning's."""

ERRORS = (ValueError, OSError, FloatingPointError, MisconfigurationException)
"""What is raised for a mistake of the user; anything else is a fault of the program, and keeps its traceback."""

SIGTERM_STATUS = 143
"""The exit status of a process that SIGTERM has ended, 128 + 15."""

USELESS = (
    ".*module.s. in eval mode.*",  # all of ours are, on purpose
    ".*Total length of .* across ranks is zero.*",  # no validation prompts
    ".*LightningCLI's args parameter.*",
    ".*does not have many workers.*",
)
"""Warnings about what is meant to be so."""


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


class CLI(LightningCLI):
    """LightningCLI with CSV logs, safe checkpoints, an evaluation and written predictions, unless a config says else."""

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        export_parser = self.init_parser(description=COMMANDS[EXPORT])
        self._add_arguments(export_parser)
        # no program but this one needs the model: it stands in the config's module
        export_parser.add_function_arguments(export, skip={"model", "card"})
        self._subcommand_parsers[EXPORT] = export_parser
        assert parser._subcommands_action is not None
        parser._subcommands_action.add_subcommand(EXPORT, export_parser, help=COMMANDS[EXPORT])

    def instantiate_classes(self) -> None:
        """Builds module, data and trainer, of which ``export`` needs none."""
        if self.subcommand != EXPORT:
            super().instantiate_classes()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand == EXPORT:
            self._export()
        else:
            super()._run_subcommand(subcommand)

    def _export(self) -> None:
        config = self.config[EXPORT]
        if config.folder is not None:
            check_empty(Path(config.folder))
        choose(config.to, config.exporter)
        model = build(config.model.get("init_args", {}).get("model"), DiffusionModel, "model.model")
        exporter = None if config.exporter is None else build(config.exporter, Exporter, "exporter")
        card = card_of(config.as_dict(), Path(config.ckpt_path))
        asked = {name: config[name] for name in ("folder", "ckpt_path", "to", "use_average", "push")}
        self.exported = export(model, exporter=exporter, card=card, **asked)
        sys.stdout.write("".join(f"{path}\n" for path in self.exported))

    def before_instantiate_classes(self) -> None:
        """Checks settings once interpolations are resolved."""
        check_settings(self.config[self.subcommand].as_dict())

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and keeps the names of the config files, which jsonargparse drops where it interpolates."""
        options = list(read_options(args[1:])) if isinstance(args, list | tuple) else []
        self.files = [option.text for option in options if option.name in CONFIG and option.text]
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """The config alone says what is built: a checkpoint changes weights, not settings."""

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        root = self._root(config["default_root_dir"])
        check_writable(root)
        config["default_root_dir"] = str(root)
        if config["logger"] in (None, True):
            config["logger"] = CSVLogger(root, "logs")
        config["plugins"] = _with_safe_checkpoints(config["plugins"])
        config["callbacks"] = [*_listed(config["callbacks"]), *self._further(root, config)]
        return super()._instantiate_trainer(config, callbacks)

    def _root(self, given: str | None) -> Path:
        """The folder of the results; where none is set, that of the first config's name in ``runs``."""
        given = given or DEFAULTS["default_root_dir"]
        files = self.files or [str(file) for file in self.config[self.subcommand].get("config") or []]
        return Path(given, Path(files[0]).stem) if given == DEFAULTS["default_root_dir"] and files else Path(given)

    def _further(self, root: Path, config: dict[str, Any]) -> list[Callback]:
        """The callbacks that a config need not name."""
        given = _listed(config["callbacks"])
        wanted: list[Callback] = []
        if config["enable_checkpointing"] is not False and not any(isinstance(c, Checkpoint) for c in given):
            wanted.append(Checkpointing(dirpath=str(root / "checkpoints")))
        if self.subcommand == "predict" and not any(isinstance(c, PredictionWriter) for c in given):
            wanted.append(PredictionWriter())
        if not any(isinstance(c, EMA) for c in given):
            wanted.append(UnusedAverage())
        scorable = isinstance(self.model, Alignment) and isinstance(self.datamodule, PromptData)
        if self.subcommand == "test" and scorable and not any(isinstance(c, Evaluation) for c in given):
            wanted.append(Evaluation())
        return wanted

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "predict":
            # they are written one by one, and would fill the memory
            kwargs["return_predictions"] = bool(kwargs.get("return_predictions"))
        return kwargs


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


def check_writable(folder: Path) -> None:
    """Raises if no file can be made in ``folder``, so that a run fails before its first step and not after it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    # ValueError: of a name with NUL in it
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OSError(
            f"the output folder {folder} cannot be written to ({reason}); set trainer.default_root_dir to one that can"
        ) from error


def run(arguments: Any, kind: type[CLI] = CLI) -> LightningCLI:
    """Parses arguments, builds module, data and trainer, and runs the command.

    Args:
        arguments: The arguments, as a list or as a mapping.
        kind: The command line; a subclass may add to a run what no config holds.

    Raises:
        SystemExit: With status 143 if SIGTERM has ended the run.
    """
    try:
        return kind(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            save_config_kwargs={"overwrite": True},
            trainer_defaults=DEFAULTS,
            parser_class=Parser,
            parser_kwargs={"parser_mode": MODE},
            args=arguments,
        )
    except SIGTERMException:
        raise SystemExit(SIGTERM_STATUS) from None


def cause(error: BaseException) -> BaseException:
    """Returns the error that our code raised, where jsonargparse has wrapped it in its own."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def _raised_in(error: BaseException) -> str:
    """Returns the module in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _with_safe_checkpoints(plugins: Any) -> list[Any]:
    given = _listed(plugins)
    return given if any(isinstance(plugin, CheckpointIO) for plugin in given) else [*given, SafeCheckpointIO()]
