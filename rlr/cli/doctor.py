"""``python train.py doctor``: what this machine has, what a config needs, and whether it will fit. Nothing is downloaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlr.analysis.footprint.total import LIBRARIES, Footprint
from rlr.cli import machine
from rlr.cli.examination import Examination, examine
from rlr.cli.fitting import Fit, changes, needs
from rlr.cli.machine import Memory
from rlr.cli.run_folder import RUNS
from rlr.evaluation.report import Table
from rlr.evaluation.vbench import weights as vbench
from rlr.evaluation.vbench.dimensions import SIX
from rlr.io.inventory import Source, without_weights
from rlr.io.offline import offline

GIB, MIB = 2**30, 2**20
WIDTH = 22
LEAST = 2**10
"""The fewest bytes that are worth a line."""
NOT_ENOUGH = (
    "None of this is enough: set the model's checkpointing and vae_slicing (or decode_chunk: 1), dtype: bfloat16, a smaller size, "
    "or take a larger GPU."
)


@dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Args:
        text: All of it, for a terminal.
        sound: Whether all that is needed is there, and fits.
    """

    text: str
    sound: bool


def doctor(config: Any, memory_gib: float | None = None) -> Diagnosis:
    """State what this machine has, what a config needs, and whether it will fit. Nothing is downloaded.

    Args:
        config: The parsed config.
        memory_gib: The memory of the GPU to train on, where that is another machine's; by default what is free here.
    """
    found = examine(config)
    lines = [*_machine(str(config.trainer.default_root_dir or RUNS)), "", *_files(found)]
    if found.module is None:
        why = " Its files are not here, and" if found.inventory.missing else " It cannot be built, and"
        return _ended([*lines, "", "Memory", f" {why} therefore its memory is not estimated."], found, False)
    if found.alignment is None:
        kind = type(found.module).__name__
        return _ended([*lines, "", "Memory", f"  The memory of a {kind} is not estimated."], found, False)
    device, libraries = _device(config.trainer, memory_gib, found)
    try:
        estimated, fits = _memory(found, device, libraries)
    # a model or a reward of one's own may do anything with tensors that have no content
    except Exception as error:
        estimated = [f"  The memory cannot be estimated ({type(error).__name__}: {str(error).splitlines()[0]})."]
        fits = False
    return _ended([*lines, "", *estimated], found, fits)


def on_machine() -> str:
    """Returns what this machine has, without a config."""
    cached = machine.cached()
    kept = [_line(name, _size(size)) for name, size in sorted(cached.items())] or ["  nothing"]
    advice = ["", "`python train.py doctor --config FILE` states whether a config has all that it needs, and fits."]
    return "\n".join([*_machine(RUNS), "", f"Models and data sets in {machine.hub_cache()}", *kept, *advice])


def _machine(root: str) -> Iterator[str]:
    """Yields the lines on the machine."""
    yield "Versions"
    yield from (_line(name, found) for name, found in machine.versions().items())
    yield from ("", "Devices")
    gpus = machine.gpus()
    yield from (_space(memory) for memory in (*gpus, machine.ram()))
    if not gpus:
        yield "  There is no GPU that torch can use."
    yield from ("", "Disk")
    yield from (_space(machine.disk(folder)) for folder in (root, machine.hub_cache()))
    yield from ("", "Extras")
    for extra, lacking in machine.extras().items():
        there = f"lacks {', '.join(lacking)}: pip install 'rlr[{extra}]'" if lacking else "installed"
        yield _line(extra, there)
    here, needed = vbench.present(SIX, vbench.cache())
    remedy = "" if here == needed else "; `make vbench-weights` lists what goes where"
    yield _line("weights of VBench", f"{here} of {needed} files in {vbench.cache()}{remedy}")


def _files(found: Examination) -> Iterator[str]:
    """Yields the lines on the files that the config needs."""
    yield "Files of the config"
    by_name: dict[str, list[Source]] = {}
    for source in found.inventory.sources:
        by_name.setdefault(source.name, []).append(source)
    for name, sources in by_name.items():
        parts = ", ".join(source.part for source in sources if source.part)
        missing = [source for source in sources if not source.here]
        yield f"  {name}{f' ({parts})' if parts else ''}: {'MISSING' if missing else 'here'}"
    if not by_name:
        yield "  It needs no files of weights."


def _device(trainer: Any, memory_gib: float | None, found: Examination) -> tuple[Memory, int]:
    """Returns the memory of the device that trains, and the bytes of its libraries."""
    accelerator, gpus = str(trainer.accelerator or "auto"), machine.gpus()
    if memory_gib is not None:
        size = round(memory_gib * GIB)
        return Memory("a GPU as given by memory_gib", size, size), LIBRARIES
    if accelerator in ("gpu", "cuda") and not gpus:
        found.faults.append(
            f"trainer.accelerator is {accelerator!r}, and torch finds no GPU here; run doctor on the machine that will train, or "
            "give its memory by --memory_gib"
        )
    if gpus and accelerator in ("auto", "gpu", "cuda"):
        devices = trainer.devices
        return gpus[devices[0] if isinstance(devices, list) else 0], LIBRARIES
    return machine.ram(), 0


def _memory(found: Examination, device: Memory, libraries: int) -> tuple[list[str], bool]:
    """Returns the lines on memory, and whether it is enough."""
    assert found.alignment is not None
    # text encoders that are loaded on demand are loaded here
    with offline(), without_weights():
        footprint = Footprint(found.alignment, found.batch, found.precision, found.averaged, libraries, found.prompt)
        needed = needs(footprint)
    own = next(iter(needed))
    peak, fit = footprint.peak(), Fit(needed[own][0], device.free)
    lines = [
        f"Memory of training, estimated (batch {found.batch}, {footprint.module.chain.steps} steps)",
        *(_line(name, _size(size)) for name, size in _parts(footprint, peak.device) if size >= LEAST),
        *_estimators(needed, device.free),
        "",
        _verdict(fit, device),
    ]
    if not fit.fits:
        found_changes = changes(footprint, needed, device.free)
        lines += [f"  {change.text}: {_size(change.needed)}" for change in found_changes]
        if not any(Fit(change.needed, device.free).fits for change in found_changes):
            lines.append(f"  {NOT_ENOUGH}")
    lines += [f"  not counted: {what}" for what in footprint.training.uncounted]
    waiting = Fit(peak.waiting, machine.ram().free)
    if peak.waiting:
        lines.append(
            f"  In the CPU's memory {_size(waiting.needed)} of {_size(waiting.there)} that are free: {waiting.word}."
        )
    return lines, fit.fits and waiting.fits


def _parts(footprint: Footprint, total: int) -> Iterator[tuple[str, int]]:
    """Yields what the memory is made of."""
    yield from footprint.weights.items()
    yield "embeddings of prompts", footprint.embeddings
    if footprint.libraries:
        yield "CUDA and its libraries", footprint.libraries
    yield "a round of training", total - footprint.frozen
    yield "in all", total


def _estimators(needed: Mapping[str, tuple[int, int]], there: int) -> Iterator[str]:
    """Yields the table of estimators."""
    head = ("by estimator", "as configured", "checkpoint_steps", "")
    rows = [(name, *map(_size, sizes), Fit(sizes[0], there).word) for name, sizes in needed.items()]
    yield ""
    yield from (f"  {line}" for line in Table("Memory by estimator", head, rows).text().splitlines())


def _verdict(fit: Fit, device: Memory) -> str:
    of = f"about {_size(fit.needed)} of the {_size(fit.there)} that are free on {device.name}"
    if fit.fits:
        return f"It fits: it needs {of}."
    if fit.close:
        return f"It is close: it needs {of}, and the estimate may be wrong by a tenth. What would fit:"
    return f"It does not fit: it needs {of}. What would help:"


def _ended(lines: Sequence[str], found: Examination, fits: bool) -> Diagnosis:
    """Returns the diagnosis, with what is missing and how to get it at its end."""
    missing = list(dict.fromkeys(f"  {source.name}: {source.remedy}" for source in found.inventory.missing))
    faults = [f"  {fault}" for fault in found.faults]
    end = ["", "Missing", *missing] if missing else []
    end += ["", "Faults", *faults] if faults else []
    return Diagnosis("\n".join([*lines, *end]), fits and not missing and not faults)


def _line(name: str, value: str) -> str:
    return f"  {name:<{WIDTH}} {value}"


def _space(memory: Memory) -> str:
    return _line(memory.name, f"{_size(memory.free)} free of {_size(memory.total)}")


def _size(size: float) -> str:
    if size < GIB / 10:
        return f"{size / MIB:.3g} MiB"
    return f"{size / GIB:.3g} GiB" if size < 1000 * GIB else f"{size / GIB:.0f} GiB"
