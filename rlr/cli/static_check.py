"""The check of a command line before torch and Lightning are imported, which takes seconds: names, types and files."""

import ast
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any

from rlr.cli.config_inheritance import Part
from rlr.cli.draft_config import CONFIG, draft, read_options, read_sources, texts_of
from rlr.cli.error_messages import formatted, missing, nearest, unknown_option
from rlr.cli.run_folder import Run, requeued
from rlr.cli.settings import check_settings
from rlr.cli.source_index import (
    Class,
    Parameter,
    function_parameters,
    method_parameters,
    named_among,
    named_anywhere,
    open_class,
)
from rlr.cli.type_check import TypeCheck
from rlr.io.config_files import ConfigError

EXPORT, ANALYZE, DOCTOR = "export", "analyze", "doctor"
OWN = (EXPORT, ANALYZE, DOCTOR)
"""The commands that are functions of their own names in modules of their own names, and no methods of the trainer."""

COMMANDS = {
    "fit": "train",
    "validate": "score the samples of the validation prompts",
    "test": "score the samples of the test prompts, beside those of the base model",
    "predict": "write samples of the prompts",
    EXPORT: "write the trained weights in the format of another program",
    ANALYZE: "measure bias, variance and cost of gradient estimators, and recommend one",
    DOCTOR: "state what this machine has, what the config lacks, and whether it will fit; it needs no config",
}
"""The commands on a config and what they do."""

ON_RUNS = {
    "page": "write the page of a finished or interrupted run again",
    "compare": "compare runs: curves, paired differences, images",
}
"""The commands on the folders of runs, which need no config."""

USAGE = """usage: python train.py COMMAND --config FILE [--OPTION VALUE ...]

commands:
{commands}

`python train.py COMMAND --help` lists the options of a command, `--model.help CLASS` and `--data.help CLASS` the arguments of
a class, and `--print_config` prints the whole config of a command without running it.
"""

FLAGS = ("help", "print_config")


def usage() -> str:
    """Returns what ``--help`` prints without a command."""
    return USAGE.format(commands="\n".join(f"  {name:<9} {text}" for name, text in (COMMANDS | ON_RUNS).items()))


def check_command(arguments: Sequence[str]) -> None:
    """Checks a command line and imports the classes that it names.

    Raises:
        ConfigError: If a command, an option, a file, a class or an argument does not exist, or a value has the wrong type.
    """
    command = arguments[0]
    if command not in COMMANDS:
        raise ConfigError(f"there is no command {command!r}; {nearest(command, [*COMMANDS, *ON_RUNS])}")
    options = list(read_options(arguments[1:]))
    known = known_options(command)
    if not known:
        import_classes(named_anywhere([]))
        return
    for option in options:
        first = option.name.split(".")[0]
        if first not in (*known, *CONFIG, *FLAGS, "h"):
            raise ConfigError(
                unknown_option(option.name if first == option.name else first, [*known, *CONFIG[:1], *FLAGS])
            )
    asked = [option.text or option.name for option in options if option.name.split(".")[-1] in ("help", "h")]
    if asked:
        import_classes(named_anywhere(asked))
        return
    complete = not any(option.name in FLAGS for option in options)
    sources = read_sources(options)
    # jsonargparse reads a class that a later source replaces, too
    replaced = named_among(texts_of(sources))
    config = draft(sources)
    classes = check_config(config, known, complete)
    if command == "fit" and complete:
        check_folder(config, [option.text for option, _ in sources if option.name in CONFIG and option.text])
    import_classes([*classes, *replaced])


def check_folder(config: Mapping[str, Any], files: Sequence[str]) -> None:
    """Raises a ``ConfigError`` if a ``fit`` would overwrite a run."""
    trainer = config.get("trainer")
    trainer = trainer.load() if isinstance(trainer, Part) else trainer or {}
    root = str(trainer.get("default_root_dir") or "")
    # what refers to another key is known after the imports
    if "${" not in f"{root}{config.get('ckpt_path')}" and not requeued():
        Run.of(root, files).check_free(config.get("ckpt_path"))


def check_config(config: Mapping[str, Any], known: Mapping[str, Parameter | Class], complete: bool) -> list[Class]:
    """Checks a config and returns the classes that it names.

    Args:
        config: The config.
        known: The keys it may have.
        complete: Whether arguments without a default have to be there.
    """
    for place, text in _texts(config):
        _check_interpolation(place, text)
    check = TypeCheck(complete)
    for name, value in config.items():
        if name not in known:
            raise ConfigError(unknown_option(str(name), known))
        kind = known[name]
        if isinstance(kind, Parameter):
            check.value(value, kind.annotation, kind.module, name)
        elif name == "trainer":
            _check_trainer(value, kind, check)
        else:
            check.object(value, kind, name)
    needed = [
        name
        for name, kind in known.items()
        if kind is not known.get("trainer") and getattr(kind, "default", None) is None
    ]
    if complete and (lacking := [name for name in needed if name not in config]):
        raise ConfigError(missing("", "the command", lacking))
    check_settings(config)
    return list(check.classes.values())


def _check_trainer(value: Any, trainer: Class, check: TypeCheck) -> None:
    value = value.load() if isinstance(value, Part) else value
    parameters = trainer.parameters or {}
    if not isinstance(value, Mapping):
        raise ConfigError(
            f"trainer: expected arguments of Lightning's Trainer by name, got {value!r}; write NAME: VALUE"
        )
    for name in value:
        if parameters and name not in parameters:
            raise ConfigError(unknown_option(f"trainer.{name}", [f"trainer.{known}" for known in parameters]))
    check.arguments(value, parameters, "Trainer", "trainer")


def known_options(command: str) -> dict[str, Parameter | Class]:
    """Returns the keys of the config of a command: parameters, and the classes whose objects or arguments they hold.

    The mapping is empty where the source files of Lightning are not available.
    """
    trainer = open_class("lightning.pytorch.Trainer")
    model, data = open_class("lightning.pytorch.LightningModule"), open_class("lightning.pytorch.LightningDataModule")
    if trainer is None or model is None or data is None:
        return {}
    seed = Parameter("seed_everything", ast.parse("bool | int", mode="eval").body, ast.Constant(0), trainer.module)
    own: dict[str, Parameter | Class] = {"seed_everything": seed, "trainer": trainer, "model": model, "data": data}
    own_function = command in OWN
    given = function_parameters(f"rlr.cli.{command}", command) if own_function else method_parameters(trainer, command)
    for name, parameter in given.items():
        # the command line builds these itself
        if name not in ("model", "datamodule", "card") and "dataloaders" not in name:
            own[name] = parameter
    return own


def import_classes(classes: Sequence[Class]) -> None:
    """Imports the modules of classes, which gives them their short names in configs."""
    for name in sorted({item.module.name for item in classes}):
        import_module(name)


def _texts(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """Yields every text in a value and its place."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{place}.{key}" if place else str(key))
    elif isinstance(value, list):
        for k, item in enumerate(value):
            yield from _texts(item, f"{place}[{k}]")
    elif isinstance(value, str):
        yield place, value


def _check_interpolation(place: str, text: str) -> None:
    if "${" not in text:
        return
    from omegaconf.errors import GrammarParseError
    from omegaconf.grammar_parser import parse

    key, place = place, place.replace(".init_args", "")
    for name in re.findall(r"\$\{\s*([\w.\[\]]+)\s*\}", text):
        if f"{key}.".startswith(f"{name}."):
            raise ConfigError(
                f"{place}: expected an interpolation of another key, got {formatted(text)}, which holds itself; name another key, "
                "or write the value"
            )
    try:
        parse(text)
    except GrammarParseError:
        raise ConfigError(
            f"{place}: expected an interpolation such as ${{model.init_args.seed}}, got {text!r}; "
            "complete it, or write \\${ for the signs"
        ) from None
    for name in re.findall(r"\$\{oc\.env:\s*([^,}\s]+)\s*\}", text):
        if name not in os.environ:
            raise ConfigError(
                f"{place}: the environment variable {name} is not set; set it, or write ${{oc.env:{name},DEFAULT}}"
            )
