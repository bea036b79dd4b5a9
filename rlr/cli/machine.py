"""What a machine has: versions, devices, memory, disk, extras, and files of the hub."""

import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

import psutil
import torch
from huggingface_hub import scan_cache_dir
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import CacheNotFound
from packaging.requirements import Requirement

PACKAGES = ("rlr", "torch", "lightning", "diffusers", "transformers", "peft")
"""The packages whose versions matter most."""

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""The files that hold the memory of a container."""


@dataclass(frozen=True)
class Memory:
    """A memory.

    Args:
        name: The device.
        total: All of its bytes.
        free: Those that are free.
    """

    name: str
    total: int
    free: int


def versions() -> dict[str, str]:
    """Returns the versions of Python, of packages, and of CUDA and cuDNN where there is a GPU."""
    found = {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}
    if torch.cuda.is_available():
        found |= {"CUDA": str(torch.version.cuda), "cuDNN": str(torch.backends.cudnn.version())}
    return found


def gpus() -> list[Memory]:
    """Returns the memories of the GPUs."""
    found = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        found.append(Memory(torch.cuda.get_device_name(number), total, free))
    return found


def ram() -> Memory:
    """Returns the memory of the CPU, or what a container may use of it."""
    memory = psutil.virtual_memory()
    limit = min([memory.total, *_limits()])
    free = min(memory.available, limit - (memory.used if limit == memory.total else psutil.Process().memory_info().rss))
    return Memory(f"CPU, {cores()} cores", limit, max(0, free))


def cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _limits() -> Iterator[int]:
    for name in LIMITS:
        try:
            yield int(Path(name).read_text())
        except (OSError, ValueError):
            # no container, or one without a limit
            continue


def disk(folder: str | Path) -> Memory:
    """Returns the disk of a folder, which need not exist yet."""
    path = Path(folder).expanduser().absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    usage = shutil.disk_usage(there)
    return Memory(str(folder), usage.total, usage.free)


def hub_cache() -> str:
    """Returns the folder in which the hub's files are kept."""
    return HF_HUB_CACHE


def cached() -> dict[str, int]:
    """Returns the bytes of each repository in the hub's cache, by its name."""
    try:
        return {repository.repo_id: repository.size_on_disk for repository in scan_cache_dir().repos}
    except CacheNotFound:
        return {}


def extras(name: str = "rlr") -> dict[str, list[str]]:
    """Returns the packages that each extra of a distribution lacks here, by the name of the extra."""
    needed = [Requirement(text) for text in requires(name) or []]
    return {extra: _lacking(needed, extra) for extra in metadata(name).get_all("Provides-Extra") or []}


def _lacking(needed: Iterable[Requirement], extra: str) -> list[str]:
    """Returns the packages of an extra that are not installed."""
    own = (
        r for r in needed if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})
    )
    return [requirement.name for requirement in own if not _installed(requirement.name)]


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
