"""What each section of a training step costs: seconds and peak memory."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Profiler:
    """Adds up seconds, and takes the largest peak of memory, by section.

    On CUDA the memory is what PyTorch allocated; on the CPU it is the resident set where Linux reports its peak,
    else 0.

    Args:
        device: The device that computes.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.peak: dict[str, float] = defaultdict(float)
        """In MiB."""
        self._began = 0.0

    def start(self) -> None:
        """Begins a section, whose name may not be known yet."""
        _reset_peak(self.device)
        self._began = self._now()

    def stop(self, section: str) -> None:
        """Ends the section and names it."""
        self.seconds[section] += self._now() - self._began
        self.peak[section] = max(self.peak[section], _peak(self.device) / 2**20)

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A context that measures what is done in it."""
        self.start()
        yield
        self.stop(name)

    def metrics(self) -> Iterator[tuple[str, float]]:
        """Yields the measurements by log name."""
        for section, seconds in self.seconds.items():
            yield f"seconds/{section}", seconds
            yield f"memory_mib/{section}", self.peak[section]

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # "5" sets the recorded peak of the resident set to its present size (man 5 proc)
    with suppress(OSError):
        CLEAR.write_text("5")


def _peak(device: torch.device) -> float:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not STATUS.exists():
        return 0.0
    lines = (line.split() for line in STATUS.read_text().splitlines())
    return next((1024 * float(words[1]) for words in lines if words and words[0] == "VmHWM:"), 0.0)
