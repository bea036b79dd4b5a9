"""What is wrong with a config or a command line, in one sentence: what was expected, what was found, where, and what to do."""

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FRAMES = re.compile(
    r"Given value|Subtypes:|Does not validate|Errors:|Expected a <class 'NoneType'>|Expected a path but"
)
"""Lines of jsonargparse's messages that hold no fact."""

INTERPOLATION = (
    r"(?:Interpolation key '\.*([^']*)' not found|Unsupported interpolation type (\S+)|Recursive interpolation detected)"
    r".*full_key: (\S+)"
)
"""OmegaConf's messages on interpolations."""

COMMANDS = r"(?:fit|validate|test|predict|export|analyze)\."
"""The commands at the start of keys in messages of jsonargparse."""

REMEDY = "correct it in the config or on the command line"


class Complaint(NamedTuple):
    """The fact in a message of jsonargparse.

    Args:
        place: The key in the config, such as ``model.sampler``.
        owner: The import path of the class that was to be built there, if any.
        fact: What is wrong.
    """

    place: str
    owner: str
    fact: str


def sentence(text: object) -> str:
    """Returns a message on one line, those of OmegaConf on interpolations in our words."""
    line = " ".join(str(text).split())
    match = re.search(INTERPOLATION, line)
    return _interpolation(match) if match else line


def unknown_option(name: str, known: Iterable[str]) -> str:
    """The sentence for an option or a key that does not exist."""
    return f"there is no option {formatted(name)}; {nearest(name, sorted(known))}"


def unknown_argument(place: str, owner: str, name: str, known: Sequence[str]) -> str:
    """The sentence for an argument that a class does not take."""
    return f"{place}: {owner} has no argument {formatted(name)}; {nearest(name, known)}"


def unknown_class(place: str, kind: str, name: str, known: Sequence[str]) -> str:
    """The sentence for a class that does not exist where one of some kind is expected."""
    return f"{place}: there is no {kind} {formatted(name)}; {nearest(name, known)}"


def function_for_class(place: str, kind: str, name: str, known: Sequence[str]) -> str:
    """The sentence for a function where a class of some kind is expected; ``FunctionReward`` makes a reward of one."""
    wrapper = f"Function{kind}"
    remedy = f"set {{class_path: {wrapper}, init_args: {{function: {name}}}}}" if wrapper in known else "name a class"
    return f"{place}: expected a class of {kind}, got the function {name}; {remedy}"


def wrong_type(place: str, expected: str, found: Any) -> str:
    """The sentence for a value of another type than the expected one."""
    return f"{place}: expected {expected}, got {formatted(found)}; {REMEDY}"


def missing(place: str, owner: str, names: Sequence[str]) -> str:
    """The sentence for arguments that have to be given."""
    verb, them = ("has", "it") if len(names) == 1 else ("have", "them")
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"{owner} needs {listed}, which {verb} no default; set {them}{f' under {place}' if place else ''}"


def no_file(place: str, path: str) -> str:
    """The sentence for a file that does not exist."""
    return (
        f"{place}: there is no file {path}; check the path (in a config it is relative to that config, on the command line to "
        f"{Path.cwd()})"
    )


def no_module(place: str, name: str) -> str:
    """The sentence for a module that does not exist."""
    return (
        f"{place}: expected a module that Python can import, found none named {name!r}; put its file beside train.py, or add its "
        "folder to PYTHONPATH"
    )


def formatted(value: Any) -> str:
    """Returns a value as YAML writes it, cut where it is long."""
    text = (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= 80 else f"{text[:77]}..."


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns the known name that is nearest to a wrong one, or else all known names."""
    close = difflib.get_close_matches(name, known, 1, 0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"there are {', '.join(known)}" if known else "leave it out"


def explain(message: str, options: Iterable[str] = ()) -> str:
    """Returns one sentence for a message of jsonargparse.

    Args:
        message: The message.
        options: The options of the command line.
    """
    place, owner, fact = read(message)
    for pattern, tell in SENTENCES:
        if match := re.search(pattern, fact):
            return sentence(tell(match, Complaint(place, owner, fact), list(options)))
    return sentence(f"{place}: {fact}" if place else fact)


def read(message: str) -> Complaint:
    """Finds place, owner and fact in an indented message of jsonargparse: the way down to its first leaf."""
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


def _interpolation(match: re.Match[str]) -> str:
    key, resolver, place = match.groups()
    place = re.sub(rf"^{COMMANDS}|\.init_args", "", place)
    if key:
        return (
            f"{place}: there is no key {key!r} to interpolate; write the whole way to it, such as model.init_args.seed"
        )
    if resolver:
        return f"{place}: there is no resolver {resolver!r}; write ${{oc.env:NAME}} or the name of a key"
    return f"{place}: the interpolations of this key lead back to it; write the value out at one of them"


def _option(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    name = match[1].lstrip("-").split("=")[0]
    beside = [option for option in options if option.rpartition(".")[0] == name.rpartition(".")[0]]
    return unknown_option(name, beside or [option for option in options if "." not in option])


def _argument(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    return unknown_argument(complaint.place, complaint.owner.rpartition(".")[2], match[1], [])


def _type(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    value = re.search(r"Got value: (.*)", complaint.fact)
    found = f", got {value[1]!r}" if value else ""
    return f"{complaint.place}: expected {match[1]}{found}; {REMEDY}"


def _other(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    expected, _, found = match[1].partition("Got value:")
    got = f", got {formatted(found.strip())}" if found.strip() else ""
    return f"{complaint.place or 'the config'}: expected {expected.rstrip(' .;:')}{got}; {REMEDY}"


def _required(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    names = re.sub(rf"\b{COMMANDS}", "", match[1].strip()).split(", ")
    return missing(complaint.place, complaint.owner.rpartition(".")[2] or "the config", names)


def _module(match: re.Match[str], complaint: Complaint, options: Sequence[str]) -> str:
    return no_module(complaint.place or "the config", match[1])


SENTENCES = (
    (r"No module named '([^']+)'", _module),
    (r"(?:does not accept option|unrecognized arguments:) '?([^'\s]+)", _option),
    (r"Option '([^']+)' is not accepted", _argument),
    (r"Expected a <class '([^']+)'>", _type),
    (r"arguments are required: (.+)", _required),
    (r"^Expected (an? .+)", _other),
)
"""What is recognized in messages of jsonargparse, for values that the source files did not tell to be wrong."""
