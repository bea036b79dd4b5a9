"""What a command does once its arguments have been checked: the parser, and LightningCLI with the defaults of this library."""

import inspect
import json
import logging
import shlex
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import diffusers
import huggingface_hub
import transformers
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_only

import rlr.modules.sharded  # noqa: F401 - its strategy has a name for --trainer.strategy
from rlr.callbacks import (
    EMA,
    BestCheckpoint,
    Checkpointing,
    KeptAdapter,
    LoRAFolder,
    MetricsFile,
    PredictionWriter,
    Preemption,
    ProgressLine,
    RunConfig,
    RunPage,
    SafeCheckpointIO,
    UnusedAverage,
)
from rlr.callbacks.run_page import make_page
from rlr.cli.analyze import analyze, training_gradient
from rlr.cli.card import card_of
from rlr.cli.config_parts import arguments_of, class_of
from rlr.cli.doctor import doctor
from rlr.cli.draft_config import CONFIG, read_options
from rlr.cli.ending import ending
from rlr.cli.export import check_empty, choose, export
from rlr.cli.interrupts import exit_by, sigterm_raises
from rlr.cli.paged import PAGED, samples_to_show
from rlr.cli.parser import MODE, Parser, build
from rlr.cli.run_folder import CONFIG as CONFIG_FILE
from rlr.cli.run_folder import HEADER, LAST, RUNS, Run, requeued
from rlr.cli.run_name import facts
from rlr.cli.settings import check_settings, sampling_settings
from rlr.cli.static_check import ANALYZE, COMMANDS, DOCTOR, EXPORT, OWN
from rlr.cli.summary import summary
from rlr.cli.wandb_run import place, without_anonymous
from rlr.data import PromptData
from rlr.estimators.base import Estimator
from rlr.evaluation.report import say
from rlr.io.terminal import TERMINAL
from rlr.models import DiffusionModel
from rlr.models.export import Exporter
from rlr.modules import Alignment
from rlr.records.record import Record

DEFAULTS: dict[str, Any] = {
    "default_root_dir": RUNS,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    # what is cached in validation (encoded prompts) must be able to take part in training
    "inference_mode": False,
}
"""Where our defaults of the trainer differ from Lightning's."""

# Lightning's advertisements, and facts about devices that the user chose; its warnings stay
for _name in ("lightning.pytorch", "lightning.fabric"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# the line of progress takes the place of bars for each file of a model
transformers.utils.logging.disable_progress_bar()
diffusers.utils.logging.disable_progress_bar()
# both hide the bars of downloads as well, which may take an hour
huggingface_hub.utils.enable_progress_bars()

PARTS = ("seed_everything", "model", "data", "trainer")
"""The parts of a config that all commands have."""


class CLI(LightningCLI):
    """LightningCLI with CSV logs, safe checkpoints, an evaluation and written predictions, unless a config says else."""

    def __init__(self, module: Any, data: Any, args: Any, **settings: Any) -> None:
        self._command = named_command(args)
        super().__init__(module, data, args=args, **settings)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The commands of Lightning that have a parser: the one that is asked for, since each parser takes a tenth of a second."""
        return {name: skip for name, skip in super().subcommands().items() if self._command in (name, None)}

    def _add_subcommands(self, parser: LightningArgumentParser, **kwargs: Any) -> None:
        super()._add_subcommands(parser, **kwargs)
        assert parser._subcommands_action is not None
        # these arguments are made from the config's module
        functions = (EXPORT, export, {"model", "card"}), (ANALYZE, analyze, {"training"}), (DOCTOR, doctor, {"config"})
        for name, function, made in functions:
            if self._command not in (name, None):
                continue
            own_parser = self.init_parser(description=COMMANDS[name])
            self._add_arguments(own_parser)
            own_parser.add_function_arguments(function, skip={*made})
            self._subcommand_parsers[name] = own_parser
            parser._subcommands_action.add_subcommand(name, own_parser, help=COMMANDS[name])

    def instantiate_classes(self) -> None:
        """Builds module, data and trainer; the commands of our own build what they need."""
        if self.subcommand not in OWN:
            with self._alive():
                # prompts before the model: they take seconds, and a model minutes
                TERMINAL.status("reading prompts")
                data = self._data()
                TERMINAL.status(f"building {', '.join(self._names())}")
                self._dump_config()
                given, self.config = self.config, self.config.clone()
                self.config[self.subcommand].data = data
                super().instantiate_classes()
                self.config = given

    def _data(self) -> LightningDataModule:
        """Builds the data, and checks that they have prompts for the command."""
        data: LightningDataModule = build(self.config[self.subcommand].data, LightningDataModule, "data")
        if isinstance(data, PromptData):
            data.check(str(self.subcommand))
        return data

    def _names(self) -> list[str]:
        """The classes that take time to build."""
        arguments = arguments_of(self.config[self.subcommand].model.as_dict())
        return [name for part in ("model", "reward") if (name := class_of(arguments.get(part)))] or ["the model"]

    @property
    def _speaks(self) -> bool:
        """Whether the command states what it does; ``trainer.enable_progress_bar: false`` is silent."""
        return self.config[self.subcommand].trainer.enable_progress_bar is not False

    def _alive(self) -> AbstractContextManager[None]:
        return TERMINAL.alive() if self._speaks else nullcontext()

    def _run_subcommand(self, subcommand: str) -> None:
        if subcommand in OWN:
            {EXPORT: self._export, ANALYZE: self._analyze, DOCTOR: self._doctor}[subcommand]()
            return
        trains = subcommand == "fit" and self.trainer.is_global_zero
        with self.run.held() if trains else nullcontext():
            self._run_paged(subcommand)
        if self._speaks and self.trainer.is_global_zero:
            self._end(subcommand)

    def _run_paged(self, subcommand: str) -> None:
        """Runs a command of Lightning's, and writes the page of the run, also of an interrupted one."""
        try:
            with sigterm_raises(), self._alive():
                super()._run_subcommand(subcommand)
        except BaseException as error:
            if subcommand == "fit" and self.trainer.is_global_zero and (self.run.folder / LAST).is_file():
                error.add_note(f"continue with: {self.run.resuming}")
            raise
        finally:
            if subcommand in PAGED and self.trainer.is_global_zero and Record.is_one(self.run.folder):
                make_page(self.run.folder)

    def _end(self, subcommand: str) -> None:
        """States what the command has done."""
        line = next((c for c in self.trainer.callbacks if isinstance(c, ProgressLine)), None)  # type: ignore[attr-defined]
        say(ending(subcommand, self.trainer, self.model, self.run, line.first if line else None))

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

    def _analyze(self) -> None:
        config = self.config[ANALYZE]
        folder = Path(config.folder or self.run.folder / ANALYZE)
        check_writable(folder)
        module = build(config.model, Alignment, "model")
        data = build(config.data, LightningDataModule, "data")
        given = {
            name: build(value, Estimator, f"estimators.{name}") for name, value in (config.estimators or {}).items()
        }
        training = training_gradient(module, data, config.trainer, config.seed)
        settings = {name: config[name] for name in inspect.signature(analyze).parameters if name in config}
        self.analyzed = analyze(training, **{**settings, "estimators": given or None, "folder": str(folder)})
        say(self.analyzed.text())
        say("\n" + "\n".join(str(path) for path in sorted(folder.glob("analysis.*"))))

    def _doctor(self) -> None:
        config = self.config[DOCTOR]
        with self._alive():
            TERMINAL.status("estimating memory")
            self.diagnosis = doctor(config, config.memory_gib)
        say(self.diagnosis.text)
        if not self.diagnosis.sound:
            raise SystemExit(1)

    def before_instantiate_classes(self) -> None:
        """Checks settings once interpolations are resolved, and the folder of the run before anything is loaded."""
        config = self.config[self.subcommand]
        check_settings(config.as_dict())
        files = self.files or [str(file) for file in config.get("config") or []]
        self.run = Run.of(config.trainer.default_root_dir, files)
        if self.subcommand in OWN:
            return
        check_writable(self.run.folder)
        _check_checkpoint(config.get("ckpt_path"))
        self._resumed = config.get("ckpt_path") if self.subcommand == "fit" else None
        if self.subcommand == "fit":
            if self._resumed is None and requeued() and (self.run.folder / LAST).is_file():
                self._resumed = config.ckpt_path = "last"
            self.run.check_free(self._resumed)
            self._text = self._resolved()
            self._facts = facts(config.as_dict())
        place(config, self.run, self.subcommand != "fit" or self._resumed is not None)
        self._summary = summary(config.as_dict(), str(self.subcommand), self.run.folder)
        if self._speaks and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            say(self._summary)

    def _dump_config(self) -> None:
        """Turns the config into plain values, once: for modules that save their arguments, and for the folder of the run."""
        if not hasattr(self, "config_dump"):
            text = self._parser(self.subcommand).dump(self.config[self.subcommand], skip_none=False)
            self.config_dump = yaml.safe_load(text)

    def _resolved(self) -> str:
        """The config of this run, without what belongs to the command alone."""
        self._dump_config()
        config = {name: value for name, value in self.config_dump.items() if name in PARTS}
        config["trainer"] = {**config["trainer"], "default_root_dir": str(self.run.folder)}
        return HEADER + yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=120)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses the arguments, and keeps the names of the config files, which jsonargparse drops where it interpolates."""
        options = list(read_options(args[1:])) if isinstance(args, list | tuple) else []
        # as the user wrote it, where the process was started for this command
        program = ["python", sys.argv[0]] if sys.argv[0].endswith(".py") else ["rlr"]
        self.line = shlex.join([*program, *sys.argv[1:]]) if sys.argv[1:2] == list(args)[:1] else ""
        self.files = [option.text for option in options if option.name in CONFIG and option.text]
        super().parse_arguments(parser, args)

    def _parse_ckpt_path(self) -> None:
        """The config alone says what is built: a checkpoint changes weights, not settings."""

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        config["default_root_dir"] = str(self.run.folder)
        config["logger"] = self._loggers(config["logger"])
        config["plugins"] = _with_safe_checkpoints(config["plugins"])
        config["callbacks"] = [*_listed(config["callbacks"]), *self._further(config)]
        return super()._instantiate_trainer(config, callbacks)

    def _loggers(self, given: Any) -> Any:
        """The loggers: ``metrics.csv`` in the folder of the run for ``fit``, unless a config wants no logger."""
        if given is False or self.subcommand == "predict":
            return given or False
        others = [without_anonymous(logger) for logger in _listed(given) if logger is not True]
        folder = self.run.folder if self.subcommand == "fit" else self.run.folder / "evaluation" / str(self.subcommand)
        return [*others, MetricsFile(folder, self._resumed is not None)]

    def _further(self, config: dict[str, Any]) -> list[Callback]:
        """The callbacks that a config need not name."""
        given = _listed(config["callbacks"])
        sampled = not config["fast_dev_run"]
        for callback in given:
            if isinstance(callback, ModelCheckpoint) and not isinstance(callback, Checkpointing | BestCheckpoint):
                # Lightning's default depends on the loggers
                callback.dirpath = callback.dirpath or str(self.run.folder / "checkpoints")
        wanted: list[Callback] = []
        # a module that is no alignment may keep its own checkpoints only
        several = any(isinstance(c, Checkpoint) for c in given) and not isinstance(self.model, Alignment)
        if config["enable_checkpointing"] is not False and not several:
            wanted += [
                kind() for kind in (Checkpointing, BestCheckpoint) if not any(isinstance(c, kind) for c in given)
            ]
        if self._speaks and not any(isinstance(c, ProgressBar) for c in given):
            wanted.append(ProgressLine())
        if self.subcommand == "fit":
            wanted += [RunConfig(self.run.folder / CONFIG_FILE, self._text, self._facts)]
            wanted += [LoRAFolder(self.run.folder), KeptAdapter(), Preemption()]
        if self.subcommand == "predict" and not any(isinstance(c, PredictionWriter) for c in given):
            wanted.append(PredictionWriter())
        if not any(isinstance(c, EMA) for c in given):
            wanted.append(UnusedAverage())
        if self.subcommand in PAGED:
            wanted += samples_to_show(self.subcommand, self.model, self.datamodule, given) if sampled else []
            wanted.append(RunPage(self.run.folder, self.subcommand, self.line, self._summary))
        return wanted

    def before_predict(self) -> None:
        """Passes the settings to the writer of predictions, which goes on where another process has ended."""
        config = json.loads(self.parser.dump(self.config, format="json", skip_check=True))["predict"]
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, PredictionWriter):
                callback.settings = sampling_settings(config)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if subcommand == "predict":
            # they are written one by one, and would fill the memory
            kwargs["return_predictions"] = bool(kwargs.get("return_predictions"))
        return kwargs


def named_command(arguments: Any) -> str | None:
    """Returns the command that arguments name, or None where it has to be found among all."""
    if isinstance(arguments, Mapping):
        return arguments.get("subcommand")
    return arguments[0] if isinstance(arguments, list | tuple) else None


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


def _check_checkpoint(path: str | None) -> None:
    """Raises a ``FileNotFoundError`` for a checkpoint that does not exist, before a model is loaded."""
    # other words, such as last, and addresses are Lightning's
    if path and path.endswith(".ckpt") and "://" not in path and not Path(path).exists():
        raise FileNotFoundError(f"there is no checkpoint {path}; check --ckpt_path")


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
            save_config_callback=None,
            trainer_defaults=DEFAULTS,
            parser_class=Parser,
            parser_kwargs={"parser_mode": MODE},
            args=arguments,
        )
    except SIGTERMException as error:
        raise exit_by(error) from None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _with_safe_checkpoints(plugins: Any) -> list[Any]:
    given = _listed(plugins)
    return given if any(isinstance(plugin, CheckpointIO) for plugin in given) else [*given, SafeCheckpointIO()]
