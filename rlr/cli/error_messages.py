"""Mistakes of whoever writes a config or a command line, each told in one sentence."""

import difflib
import inspect
import re
import typing
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities.exceptions import MisconfigurationException

MISTAKES = (ValueError, OSError, FloatingPointError, MisconfigurationException)
"""What is raised for a mistake; anything else is a fault of the program, and keeps its traceback."""

FRAMES = re.compile(
    r"Given value|Subtypes:|Does not validate|Errors:|Expected a <class 'NoneType'>|Expected a path but"
)
"""Lines of jsonargparse's messages that say nothing to the user."""


class Complaint(NamedTuple):
    """What jsonargparse says in many lines.

    Args:
        place: The key in the config, such as ``model.sampler``.
        owner: The import path of the class that was to be built there, if any.
        fact: What is wrong.
    """

    place: str
    owner: str
    fact: str


def mistake(error: BaseException) -> BaseException:
    """Returns the error that our code raised, where jsonargparse has wrapped it in its own."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def sentence(text: object) -> str:
    """Returns a message on one line."""
    return " ".join(str(text).split())


def explain(message: str, options: Iterable[str]) -> str:
    """Returns one sentence for a message of jsonargparse, with the nearest name to an unknown one.

    Args:
        message: The message.
        options: The options of the command line.
    """
    if syntax := re.search(r"parsing config.*line (\d+), column (\d+)\s+(.*)", message, re.DOTALL):
        line, column, fact = syntax.groups()
        return sentence(
            f"the config is not YAML: {fact.splitlines()[0]} at line {line}, column {column}; correct it there"
        )
    complaint = read(message)
    for pattern, tell in TELLERS:
        if match := re.search(pattern, complaint.fact):
            return sentence(tell(match[1], complaint, list(options)))
    return sentence(f"{complaint.place}: {complaint.fact}" if complaint.place else complaint.fact)


def read(message: str) -> Complaint:
    """Finds place, owner and fact in an indented message: the way down to its first leaf."""
    place: list[str] = []
    owner = ""
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        if match := re.match(r'Parser key "([^"]+)":?\s*(.*)', text):
            place, text = [*place, match[1]], match[2]
        if match := re.match(r"Problem with given class_path '([^']+)':\s*(.*)", text):
            owner, text = match[1], match[2]
        if text and not FRAMES.match(text):
            return Complaint(".".join(place), owner, text)
    return Complaint(".".join(place), owner, message)


def _unknown_argument(name: str, complaint: Complaint, options: Sequence[str]) -> str:
    arguments = [*_annotations(complaint.owner), *(("class_path", "init_args") if "." in name else ())]
    owner = complaint.owner.rsplit(".", 1)[-1]
    return f"{complaint.place}: {owner} has no argument {name!r}; {_nearest(name.split('.')[0], arguments)}"


def _unknown_class(name: str, complaint: Complaint, options: Sequence[str]) -> str:
    bases = _bases(complaint)
    kind = " or ".join(base.__name__ for base in bases) or "class"
    return f"{complaint.place}: there is no {kind} {name!r}; {_nearest(name, sorted(_names(bases)))}"


def _unknown_option(name: str, complaint: Complaint, options: Sequence[str]) -> str:
    name = name.lstrip("-").split("=")[0]
    first = name.split(".")[0]
    tops = sorted({option.split(".")[0] for option in options})
    known = [option for option in options if option.startswith(f"{first}.")] if first in tops else tops
    return f"there is no option {name!r}; {_nearest(name if first in tops else first, known)}"


def _wrong_type(kind: str, complaint: Complaint, options: Sequence[str]) -> str:
    value = re.search(r"Got value: (.*)", complaint.fact)
    given = f", and {value[1]} is none" if value else ""
    return f"{complaint.place} must be of type {kind}{given}; correct it in the config or on the command line"


def _required(names: str, complaint: Complaint, options: Sequence[str]) -> str:
    owner = complaint.owner.rsplit(".", 1)[-1] or "the config"
    names = names.removeprefix("fit.").strip()
    return (
        f"{owner} needs {names}, which has no default; set it{f' under {complaint.place}' if complaint.place else ''}"
    )


def _no_file(path: str, complaint: Complaint, options: Sequence[str]) -> str:
    return f"there is no file {path} for {complaint.place}; check the path (it is relative to {Path.cwd()})"


TELLERS = (
    (r"File does not exist: '([^']+)'", _no_file),
    (r"does not accept option '([^']+)'", _unknown_option),
    (r"unrecognized arguments: (\S+)", _unknown_option),
    (r"Option '([^']+)' is not accepted", _unknown_argument),
    (r"Expected a dot import path string: (\S+)", _unknown_class),
    (r"Expected a <class '([^']+)'>", _wrong_type),
    (r"the following arguments are required: (.+)", _required),
)


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(known)}" if known else "leave it out"


def _annotations(path: str) -> dict[str, Any]:
    """Returns the arguments of the class at an import path with their types."""
    module, _, name = path.rpartition(".")
    kind = getattr(import_module(module), name) if module else object
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        hints, parameters = typing.get_type_hints(base.__init__), inspect.signature(base.__init__).parameters
        kinds = {name: parameter.kind for name, parameter in parameters.items() if name != "self"}
        rest = [name for name, sort in kinds.items() if sort is inspect.Parameter.VAR_KEYWORD]
        found |= {name: hints.get(name) for name in kinds if name not in rest and name not in found}
        if not rest:
            break
        # the next class takes them
    return found


def _bases(complaint: Complaint) -> list[type]:
    """Returns the classes that the place of a complaint accepts."""
    last = complaint.place.rsplit(".", 1)[-1]
    if not complaint.owner:
        tops: dict[str, list[type]] = {"model": [LightningModule], "data": [LightningDataModule]}
        return tops.get(last, [])
    hint = _annotations(complaint.owner).get(last)
    return [arg for arg in (hint, *typing.get_args(hint)) if inspect.isclass(arg) and arg.__module__ != "builtins"]


def _names(bases: Iterable[type]) -> set[str]:
    """Returns the names of all concrete classes below (and at) ``bases``, leaving out those of Lightning itself."""
    found: set[str] = set()
    for base in bases:
        if not inspect.isabstract(base) and not base.__module__.startswith("lightning"):
            found.add(base.__name__)
        found |= _names(base.__subclasses__())
    return found


def _raised_in(error: BaseException) -> str:
    """Returns the module in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
