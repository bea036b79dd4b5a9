"""Chat completions of any OpenAI-compatible endpoint, with an API key that is written nowhere."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from rlr.io.http import Client, StatusError, TransientError

Value = TypeVar("Value")


class Unreadable(TransientError):
    """An answer that is not what was asked for; another attempt may bring a better one."""


class UnreadableAnswer(ConnectionError):
    """No attempt brought an answer that can be read."""


class Chat:
    """Asks one model for completions, ``POST url/chat/completions``.

    Args:
        client: Asks the server, and asks again where the failure may pass.
        model: The name of the model there.
        key: The environment variable that holds the API key; not needed if the endpoint asks for no key. It is read for
            each request, kept nowhere, and replaced in the texts of errors.
    """

    def __init__(self, client: Client, model: str, key: str = "OPENAI_API_KEY") -> None:
        self.client, self.model, self.key = client, model, key

    def complete(
        self, messages: Sequence[Mapping[str, Any]], read: Callable[[bytes], Value], settings: Mapping[str, Any]
    ) -> Value:
        """Returns what ``read`` makes of the answer to some messages.

        Args:
            messages: The messages.
            read: Takes the body of the answer; a ``TransientError`` that it raises is retried.
            settings: Further fields of the request, such as ``temperature``.

        Raises:
            UnreadableAnswer: If the last answer could not be read, and ``read`` raised :class:`Unreadable`.
            ConnectionError: If the last attempt failed otherwise.
            ValueError: If the endpoint refuses.
        """
        body = {"model": self.model, "messages": list(messages), **settings}
        try:
            return self.client.ask("/chat/completions", body, read, self._headers())
        except StatusError as error:
            hint = f"set the environment variable {self.key}" if error.status in (401, 403) else "check url and model"
            raise ValueError(f"the endpoint {self.client.url} refuses with {self._hide(error)}; {hint}") from None
        except ConnectionError as error:
            kind = UnreadableAnswer if isinstance(error.__cause__, Unreadable) else ConnectionError
            # without the error that it follows from, whose text may repeat the key
            raise kind(self._hide(error)) from None

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.key)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _hide(self, error: Exception) -> str:
        """Returns the text of an error without the key: some servers repeat it."""
        key = os.environ.get(self.key)
        return str(error).replace(key, "[the API key]") if key else str(error)
