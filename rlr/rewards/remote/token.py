"""The secret that a reward server and its clients share, named in configs and written in none."""

import os
from pathlib import Path

VARIABLE = "RLR_REWARD_TOKEN"
"""The environment variable that holds the token by default."""
SHORTEST = 16
"""The fewest characters of a token."""


class Token:
    """A secret in an environment variable or a file; it is read for each use, and kept, logged and written nowhere.

    Args:
        variable: The name of the environment variable.
        file: The file, whose blanks at both ends do not count; it is read in the place of the variable.
    """

    def __init__(self, variable: str = VARIABLE, file: str | None = None) -> None:
        self.variable, self.file = variable, file

    @property
    def place(self) -> str:
        """Where the token is looked for, for messages."""
        return f"the file {self.file}" if self.file else f"the environment variable {self.variable}"

    def read(self) -> str | None:
        """Returns the token; None where no file is named and the variable is not set, or empty.

        Raises:
            ValueError: If the file cannot be read, or the token is not one; the message does not repeat it.
        """
        found = self._found()
        if not found and not self.file:
            return None
        if len(found) < SHORTEST or not all("!" <= character <= "~" for character in found):
            raise ValueError(
                f"{self.place}: expected a token of at least {SHORTEST} visible ASCII characters without blanks, found "
                f"{len(found)} characters; write one with `python -c 'import secrets; print(secrets.token_urlsafe(32))'`"
            )
        return found

    def _found(self) -> str:
        if not self.file:
            return os.environ.get(self.variable, "").strip()
        try:
            with Path(self.file).expanduser().open("rb") as file:
                return file.read(2**12).decode("latin-1").strip()
        except OSError as error:
            raise ValueError(
                f"the file {self.file} with the token of the reward server cannot be read ({error.strerror}); check token_file"
            ) from error

    def headers(self) -> dict[str, str]:
        """Returns the header that shows the token to a server; none without a token."""
        found = self.read()
        return {"Authorization": f"Bearer {found}"} if found else {}

    def hide(self, text: str) -> str:
        """Returns a text without the token: some servers repeat what they are sent."""
        found = self.read()
        return text.replace(found, "[the token]") if found else text
