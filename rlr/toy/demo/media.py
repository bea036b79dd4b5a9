"""Samples as a page shows them, inside the page itself."""

import base64
from abc import ABC, abstractmethod
from dataclasses import dataclass
from html import escape
from typing import ClassVar


@dataclass(frozen=True)
class Media(ABC):
    """A sample as the content of a file."""

    content: bytes
    kind: ClassVar[str]
    """The media type, such as ``image/png``."""

    @property
    def inline(self) -> str:
        """The content as an address that needs no other file."""
        return f"data:{self.kind};base64,{base64.b64encode(self.content).decode()}"

    @abstractmethod
    def element(self, text: str) -> str:
        """Returns the HTML element, with a text for those who do not see it."""


@dataclass(frozen=True)
class Picture(Media):
    """A PNG file."""

    kind = "image/png"

    def element(self, text: str) -> str:
        return f'<img src="{self.inline}" alt="{escape(text)}">'


@dataclass(frozen=True)
class Film(Media):
    """An mp4 file, which plays again and again."""

    kind = "video/mp4"

    def element(self, text: str) -> str:
        # phones play by themselves only what is muted and stays in its place
        return f'<video autoplay loop muted playsinline src="{self.inline}" aria-label="{escape(text)}"></video>'
