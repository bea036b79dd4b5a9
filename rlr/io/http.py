r"""One HTTP client: JSON requests with retries, time limits and answers of bounded size.

A request is repeated after a failure that may pass: a failed connection, a timeout, an answer that is cut short, and the
statuses 429 and 5xx. Attempt :math:`k + 1` follows :math:`2^k d` seconds after attempt :math:`k`, :math:`k = 0, 1, \dots`
Requests to this machine's loopback addresses never go through a proxy; others use ``HTTP_PROXY`` and its kin.
"""

import json
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv6Address, ip_address
from socket import inet_aton, inet_ntoa
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import httpx

Value = TypeVar("Value")

LONGEST = 500
"""The number of characters of a server's text that a message repeats."""


class TransientError(Exception):
    """A failure that another attempt may mend."""


class StatusError(ValueError):
    """A request that the server refuses, now and later.

    Args:
        status: The HTTP status.
        text: What the server says.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"status {status}, {text}")
        self.status = status
        self.text = text


def read_json(body: bytes) -> Any:
    """Returns the value of a JSON text.

    Raises:
        ValueError: If it is not valid, or nested too deep to read.
    """
    try:
        return json.loads(body)
    except RecursionError as error:
        raise ValueError("expected JSON, got one that is nested too deep") from error


class Client:
    r"""Asks one server, and asks again where the failure may pass.

    Args:
        url: The address, which begins with ``http://`` or ``https://``; paths are appended to it.
        timeout: The number of seconds that the server may be silent, and that the body of an answer may take.
        retries: The number of further attempts.
        delay: The first delay :math:`d`, in seconds.
        max_bytes: The largest answer.

    Raises:
        ValueError: If an argument is out of its range.
    """

    def __init__(
        self, url: str, timeout: float = 60.0, retries: int = 3, delay: float = 1.0, max_bytes: int = 2**24
    ) -> None:
        self.url, self.timeout, self.retries, self.delay = url.rstrip("/"), timeout, retries, delay
        self.max_bytes = max_bytes
        self._local = is_loopback(_host(url))
        if not timeout > 0 or retries < 0 or not delay >= 0:
            raise ValueError(
                f"{url}: expected timeout > 0, retries >= 0 and delay >= 0, got timeout={timeout}, retries={retries} and "
                f"delay={delay}"
            )

    def ask(
        self,
        path: str,
        message: object = None,
        read: Callable[[bytes], Value] = read_json,
        headers: Mapping[str, str] | None = None,
    ) -> Value:
        """Returns what ``read`` makes of the server's answer.

        Args:
            path: The path after the address.
            message: What to POST as JSON; with None the request is a GET.
            read: Takes the body of the answer; a ``TransientError`` that it raises is retried.
            headers: Further headers.

        Raises:
            ConnectionError: If the last attempt failed, too; its text is the last failure.
            StatusError: If the server answers with a status other than 2xx, 429 and 5xx, redirections included.
            ValueError: If the answer is larger than ``max_bytes``, or ``read`` raises it.
        """
        attempt = 0
        while True:
            try:
                return read(self._body(path, message, headers or {}))
            except TransientError as error:
                if attempt == self.retries:
                    raise ConnectionError(str(error)) from error
            sleep(self.delay * 2**attempt)
            attempt += 1

    def _body(self, path: str, message: object, headers: Mapping[str, str]) -> bytes:
        import httpx

        content = None if message is None else json.dumps(message).encode()
        # an answer that is not compressed has the size that is counted
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity", **headers}
        method = "GET" if content is None else "POST"
        try:
            # a client of its own: it holds no socket that a forked process would share
            with (
                httpx.Client(timeout=self.timeout, trust_env=not self._local) as client,
                client.stream(method, self.url + path, content=content, headers=headers) as answer,
            ):
                return self._checked(answer)
        except httpx.TimeoutException as error:
            raise TransientError("timed out") from error
        except httpx.TransportError as error:
            raise TransientError(clean(str(error)) or type(error).__name__) from error
        except httpx.InvalidURL as error:
            raise ValueError(
                f"{self.url}: expected an address, got one that is not valid: {clean(str(error))}"
            ) from error

    def _checked(self, answer: "httpx.Response") -> bytes:
        status = answer.status_code
        if status == 200:
            return self._read(answer)
        text = _explain(answer, self._read(answer))
        if status == 429 or status >= 500:
            raise TransientError(f"status {status}, {text}")
        raise StatusError(status, text)

    def _read(self, answer: "httpx.Response") -> bytes:
        body, end = bytearray(), monotonic() + self.timeout
        for part in answer.iter_raw():
            body += part
            if len(body) > self.max_bytes:
                raise ValueError(f"{self.url}: expected an answer of at most {self.max_bytes} bytes, got a larger one")
            if monotonic() > end:
                raise TransientError(f"timed out: the answer took more than {self.timeout:g} seconds")
        return bytes(body)


def clean(text: str) -> str:
    """Returns a server's text fit for a message: one line, printable characters alone, at most ``LONGEST`` of them."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))[:LONGEST]


def is_loopback(host: str) -> bool:
    """Returns whether a host is this machine by a loopback address, its name, or the unspecified address."""
    # a final dot only says that the name is complete
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ip_address(_ipv4(name) or name)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback or address.is_unspecified


def _ipv4(host: str) -> str | None:
    """Returns the four numbers of an IPv4 address in one of its short forms, such as ``127.1`` and ``2130706433``."""
    try:
        return inet_ntoa(inet_aton(host)) if re.fullmatch(r"[0-9a-fx.]+", host) else None
    except OSError:
        return None


def _host(url: str) -> str:
    import httpx

    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise ValueError(f"expected an address such as http://127.0.0.1:8000, got {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 2**16:
        raise ValueError(
            f"expected an address that begins with http:// or https:// and names a host, and a port below {2**16} if any, "
            f"got {url!r}"
        )
    return parsed.host


def _explain(answer: "httpx.Response", body: bytes) -> str:
    """Returns the ``error`` of a JSON answer, or its ``message``, or the reason of the status."""
    try:
        error = read_json(body)["error"]
        return clean(str(error["message"] if isinstance(error, dict) and "message" in error else error))
    except (ValueError, TypeError, KeyError, RecursionError):
        return clean(answer.reason_phrase)
