"""An extension of Griffe: the reStructuredText in docstrings, formulas and roles, becomes Markdown."""

import re
from textwrap import dedent
from typing import Any

from griffe import Extension, Object

BLOCK = re.compile(r"^( *)\.\. math::[ ]*(.*)\n?((?:[ \t]*\n|\1 +\S.*(?:\n|\Z))*)", re.MULTILINE)
FORMULA = re.compile(r":math:`([^`]+)`")
LINE = re.compile(r"^( *)\| (.*)$", re.MULTILINE)
ROLE = re.compile(r":(?:py:)?(?:attr|class|data|func|meth|mod):`(~?)([^`]+)`")


class RestMarkup(Extension):
    """Replaces the markup of every docstring that is read."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Returns a docstring with ``$…$`` for formulas, ``$$…$$`` for displayed ones, and code for roles."""
    text = BLOCK.sub(_block, text)
    text = FORMULA.sub(lambda match: f"${' '.join(match[1].split())}$", text)
    # a block of lines keeps its breaks
    text = LINE.sub(r"\1\2<br>", text)
    return ROLE.sub(_role, text)


def _block(match: re.Match[str]) -> str:
    """Returns a block of a formula, indented as the directive was."""
    indent, body = match[1], f"{match[2]}\n{dedent(match[3])}".strip()
    lines = ["", "$$", *(line for line in body.splitlines() if line.strip()), "$$", "", ""]
    return "\n".join(indent + line if line else line for line in lines)


def _role(match: re.Match[str]) -> str:
    name = match[2].rpartition(".")[2] if match[1] else match[2]
    return f"`{name}`"
