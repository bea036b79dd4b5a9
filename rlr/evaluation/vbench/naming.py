"""What a clip is called: VBench finds the clips of a prompt by their names."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

LONGEST = 230
"""The most bytes of a name: 255, less what a name has while its file is being written."""


class Clip(NamedTuple):
    """Sample ``number`` of a prompt."""

    prompt: str
    number: int

    @property
    def name(self) -> str:
        """The name of its file."""
        return f"{self.prompt}-{self.number}.mp4"

    @property
    def key(self) -> int:
        """An integer in [0, 2⁶³) that follows from the name alone, so that its noise does, too."""
        return int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8]) >> 1


def check_names(prompts: Iterable[str]) -> None:
    """Raises if the clips of a prompt cannot be files of their own in one folder.

    Raises:
        ValueError: If a prompt has a character that names of files may not have, or too many.
    """
    for prompt in prompts:
        if any(character in prompt for character in "/\0\n"):
            raise ValueError(
                f"the prompt {prompt!r} cannot be the name of a file, as VBench asks; leave out '/' and line breaks"
            )
        # the longest number is that of ten thousand samples
        if len(Clip(prompt, 9999).name.encode()) > LONGEST:
            raise ValueError(
                f"the prompt {prompt[:40]!r}… is too long for the name of a file, as VBench asks; "
                f"leave at most {LONGEST - 9} bytes"
            )
