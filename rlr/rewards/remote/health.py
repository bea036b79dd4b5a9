"""Whether a reward server answers: ``python -m rlr.rewards.remote.health --url http://127.0.0.1:8000``.

It prints the label of the reward and ends with status 0, or states what is wrong and ends with 1, as health checks of containers
expect. It needs neither torch nor the server's packages.
"""

import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import auto_cli

from rlr.io.http import Client
from rlr.rewards.remote.token import VARIABLE, Token


def health(
    url: str = "http://127.0.0.1:8000",
    timeout: float = 5.0,
    token_variable: str = VARIABLE,
    token_file: str | None = None,
) -> str:
    """Returns the label of the reward that a server computes.

    Args:
        url: The address of the server.
        timeout: The number of seconds that it may be silent.
        token_variable: The environment variable that holds its token; not needed if it asks for none.
        token_file: A file that holds the token, instead of the variable.

    Raises:
        ConnectionError: If it does not answer.
        ValueError: If it refuses, or is no reward server.
    """
    token = Token(token_variable, token_file)
    try:
        facts: Any = Client(url, timeout, retries=0).ask("/health", headers=token.headers())
    except ConnectionError as error:
        raise ConnectionError(token.hide(str(error))) from None
    except ValueError as error:
        raise ValueError(token.hide(str(error))) from None
    if not isinstance(facts, dict) or not isinstance(facts.get("label"), str):
        raise ValueError(f"{url}: expected the label of a reward, got another answer; check the url")
    return str(facts["label"])


def main(args: Sequence[str] | None = None) -> int:
    """Prints the label of the reward that the arguments name, and returns the exit status."""
    try:
        words = list(sys.argv[1:] if args is None else args)
        label = auto_cli(health, as_positional=False, args=words, prog="python -m rlr.rewards.remote.health")
    except (ConnectionError, ValueError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 1
    sys.stdout.write(f"{label}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
