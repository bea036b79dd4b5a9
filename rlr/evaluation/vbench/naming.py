"""Names of videos: VBench finds the videos of a prompt by their names."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from rlr.io.text import check_text

LONGEST = 230
"""The most bytes of a name: 255, less what a name has while its file is being written."""


class VideoName(NamedTuple):
    """Sample ``number`` of a prompt."""

    prompt: str
    number: int

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"{self.prompt}-{self.number}.mp4"


def prompt_number(prompt: str) -> int:
    """Returns an integer in [0, 2⁶³) that follows from the prompt alone: it stands for its position in a set.

    So the noise of a video does not depend on which prompts are sampled beside it.
    """
    return int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8]) >> 1


def check_names(prompts: Iterable[str]) -> None:
    """Checks that the videos of each prompt can be files in one folder.

    Raises:
        ValueError: If a prompt has a character that names of files may not have, or too many characters.
    """
    for prompt in prompts:
        check_text(prompt, f"the prompt {prompt!r}")
        if any(character in prompt for character in "/\0\n"):
            raise ValueError(
                f"the prompt {prompt!r} cannot be the name of a file, as VBench asks; remove '/' and line breaks"
            )
        # the longest number is that of ten thousand samples
        if len(VideoName(prompt, 9999).file.encode()) > LONGEST:
            raise ValueError(
                f"the prompt {prompt[:40]!r}… is too long for the name of a file, as VBench asks; "
                f"leave at most {LONGEST - 9} bytes"
            )
