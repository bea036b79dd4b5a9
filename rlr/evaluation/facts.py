"""What one needs to know to repeat a run: versions, device, date, commit."""

import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

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


def commit(root: Path | None = None, but: str | None = None) -> str | None:
    """Returns a repository's commit, marked where files differ from it; None outside a repository.

    Args:
        root: Its root, by default the working directory.
        but: A folder whose files may differ.
    """
    aside = [".", f":!{but}"] if but else []

    def git(*words: str) -> str:
        call = ["git", *words]
        return subprocess.run(call, cwd=root, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *aside)
        return git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
