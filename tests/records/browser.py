"""A headless Chromium, driven through two pipes by its DevTools protocol."""

import contextlib
import fcntl
import json
import os
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
PATIENCE = 240.0
"""The most seconds to wait for an answer, on a busy machine."""


class Browser:
    """One page of a browser.

    Args:
        read: The pipe that it answers through.
        write: The pipe that it listens to.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write, self._buffer, self._number = read, write, b"", 0
        self.messages: list[dict[str, Any]] = []
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol and returns its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.messages.append(answer)

    def open(self, file: Path) -> None:
        """Opens a file and waits until it is loaded."""
        self.messages.clear()
        self.call("Page.navigate", url=file.as_uri())
        while not any(message.get("method") == "Page.loadEventFired" for message in self.messages):
            self.messages.append(self._next())

    def run(self, code: str) -> Any:
        """Runs JavaScript in the page, waits for what it promises, and returns its value."""
        result = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def faults(self) -> list[str]:
        """Returns what the page has written to the console, and its uncaught errors."""
        self.run("0")
        methods = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [json.dumps(message) for message in self.messages if message.get("method") in methods]

    def requests(self) -> set[str]:
        """Returns the schemes of everything that the page has asked for."""
        sent = [m["params"]["request"]["url"] for m in self.messages if m.get("method") == "Network.requestWillBeSent"]
        return {url.partition(":")[0] for url in sent}

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], PATIENCE)[0]:
                raise TimeoutError("the browser does not answer")
            if not (part := os.read(self._read, 1 << 20)):
                raise EOFError("the browser has ended")
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Yields a browser with an empty profile in a folder, and ends it."""
    assert CHROMIUM
    (listen, write), (read, answer) = os.pipe(), os.pipe()

    def connect() -> None:
        # the browser listens to descriptor 3 and answers through 4; first out of their way
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (listen, answer)]
        for end, place in zip(ends, (3, 4), strict=True):
            os.dup2(end, place)

    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=connect)
    os.close(listen)
    os.close(answer)
    try:
        yield Browser(read, write)
    finally:
        process.terminate()
        process.wait()
        os.close(read)
        os.close(write)
