"""A hook of MkDocs: formulas become MathML, which browsers show without a script and without a network."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

FORMULA = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\(?P<open>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)
"""What ``pymdownx.arithmatex`` with ``generic`` writes for a formula."""


def on_page_content(content: str, **_: Any) -> str:
    """Replaces the formulas of a page."""
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match["open"] == "[" else "inline"
    return str(convert(html.unescape(match["latex"]).strip(), display=display))
