"""What a number depends on: versions, device, date and commit of a run, and the identity of an object."""

import hashlib
import inspect
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PACKAGES = ("rlr", "torch", "lightning", "diffusers", "transformers", "peft", "numpy")


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that the numbers may depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def device(where: torch.device) -> str:
    """Returns the name of the device and, for a CPU, the number of threads."""
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    count = torch.get_num_threads()
    return f"{_processor()}, {count} {'thread' if count == 1 else 'threads'}"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def now() -> str:
    """Returns date and time in UTC, to the minute."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")


def provenance(device_: torch.device) -> dict[str, object]:
    """Returns device, date, commit and versions, as plain data."""
    return {"device": device(device_), "date": now(), "commit": commit(), "versions": versions()}


def commit(root: Path | None = None, but: str | None = None) -> str | None:
    """Returns the commit of a repository, marked where files differ from it; None outside a repository.

    Args:
        root: The root of the repository, by default the working directory.
        but: A folder whose files may differ.
    """
    aside = [".", f":!{but}"] if but else []

    def git(*arguments: str) -> str:
        call = ["git", *arguments]
        return subprocess.run(call, cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *aside)
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def identity(value: Any) -> Any:
    """Returns class, code and arguments of an object as plain data: two objects that may behave differently differ in it.

    Weights are known by names, shapes and first numbers, classes of installed libraries by name and version.

    Raises:
        LookupError: If something in the object has no such description, such as a class made in a function.
    """
    return _identity(value, ())


def _identity(value: Any, within: tuple[int, ...]) -> Any:
    if value is None or isinstance(value, bool | int | float | str | torch.dtype | torch.device | Path):
        return value if isinstance(value, bool | int | float | None) else str(value)
    if isinstance(value, Tensor):
        return _weights(value)
    if isinstance(value, type):
        return _code(value)
    if id(value) in within:
        return "itself"
    within = (*within, id(value))
    if isinstance(value, Mapping):
        return {str(key): _identity(item, within) for key, item in value.items()}
    if isinstance(value, Sequence | AbstractSet):
        items = [_identity(item, within) for item in value]
        return sorted(items, key=str) if isinstance(value, AbstractSet) else items
    if callable(value) and hasattr(value, "__code__"):
        raise LookupError(f"the function {value.__qualname__} has no description")
    return {"class": _code(type(value)), **_identity(dict(_state(value)), within)}


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    """Yields what makes an object behave as it does: arguments, settings, parts and weights."""
    if isinstance(value, nn.Module):
        yield from value.named_parameters(recurse=False)
        yield from value.named_buffers(recurse=False)
        yield from value.named_children()
    if _installed(type(value)):
        return
    arguments = (
        inspect.signature(type(value).__init__).parameters if type(value).__init__ is not object.__init__ else {}
    )
    for name, item in getattr(value, "__dict__", {}).items():
        plain = isinstance(item, bool | int | float | str)
        # other private attributes are caches
        if name != "training" and (plain or not name.startswith("_") or name.lstrip("_") in arguments):
            yield name, item


def _weights(value: Tensor) -> list[Any]:
    first = value.detach().flatten()[:64].cpu().double().tolist()
    return [str(value.dtype), list(value.shape), hashlib.sha256(repr(first).encode()).hexdigest()[:16]]


def _code(kind: type) -> list[str]:
    """Returns the name of a class, with the digest of the code of its own and its bases' modules."""
    if "<locals>" in kind.__qualname__:
        raise LookupError(f"{kind.__qualname__} is made in a function, whose variables its behavior may depend on")
    bases = [base for base in kind.__mro__ if base is not object]
    return [f"{kind.__module__}.{kind.__qualname__}", *(_source(base) for base in bases)]


def _source(kind: type) -> str:
    if _installed(kind):
        return kind.__module__.partition(".")[0]
    try:
        return _digest(inspect.getfile(kind))
    except (OSError, TypeError) as error:
        raise LookupError(f"the code of {kind.__qualname__} is in no file") from error


@cache
def _digest(path: str) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]


def _installed(kind: type) -> bool:
    """Whether a class belongs to an installed library, whose versions are noted, or to Python."""
    package = kind.__module__.partition(".")[0]
    if package == "rlr":
        return False
    try:
        path = inspect.getfile(kind)
    except (OSError, TypeError):
        return package == "builtins"
    return "site-packages" in path or path.startswith(str(Path(inspect.__file__).parent))
