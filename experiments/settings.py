"""The settings of the experiments."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"
RUNS = ROOT / "runs" / "experiments"


def cpu_seconds() -> float:
    """Returns the CPU seconds of this process and its finished children, which do not include other load.

    Those of this process are not from ``os.times``: its ticks of 10 ms are longer than a step of a small model.
    """
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


@dataclass(frozen=True)
class Setting:
    """A setting: the models, rewards and prompts of an experiment.

    Args:
        name: The name on the command line, and of the folder of results.
        title: A description of models and rewards.
        config: The config that runs of this setting start from, relative to the repository.
        prompts: The class of the prompts.
        steps: The steps of the sampler.
        samples: The samples of a held-out prompt.
        weights: The required repositories on the hub.
        gpu: Whether the setting needs a GPU.
        clock: Returns the seconds for the cost of a run: CPU seconds on a CPU, wall-clock seconds on a GPU.
        results: The folder of rows and pages.
        runs: The folder of training runs.
    """

    name: str
    title: str
    config: str
    prompts: str
    steps: int
    samples: int
    weights: tuple[str, ...] = ()
    gpu: bool = False
    clock: Callable[[], float] = cpu_seconds
    results: Path = RESULTS
    runs: Path = RUNS

    @property
    def device(self) -> torch.device:
        """The device."""
        return torch.device("cuda" if self.gpu else "cpu")

    def missing(self) -> str | None:
        """Returns one sentence about what this machine lacks, or None."""
        if self.gpu and not torch.cuda.is_available():
            return f"the setting {self.name} ({self.title}) needs a GPU, found no GPU; use --setting tiny, or another machine"
        absent = [folder for folder in self.weights if not _cached(folder)]
        if absent:
            return (
                f"the setting {self.name} needs the weights {', '.join(absent)}, which are not on this machine; fetch them "
                f"with `hf download {absent[0]}`"
            )
        return None


def _cached(folder: str) -> bool:
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        return any(repo.repo_id == folder for repo in scan_cache_dir().repos)
    except CacheNotFound:
        return False


TINY = Setting("tiny", "the built-in model and its own rewards", "configs/image/tiny_rlr.yaml", "WorldPrompts", 5, 2)
SD14 = Setting(
    "sd14",
    "Stable Diffusion 1.4 and 2.1 with the paper's rewards",
    "configs/image/sd14_rlr_pickscore.yaml",
    "PickAPic",
    50,
    1,
    weights=("CompVis/stable-diffusion-v1-4",),
    gpu=True,
    clock=time.perf_counter,
)
VC2 = Setting(
    "vc2",
    "VideoCrafter 2 with the paper's rewards of frames",
    "configs/video/vc2_rlr_hpsv2.yaml",
    "VBenchPrompts",
    25,
    5,
    weights=("VideoCrafter/VideoCrafter2",),
    gpu=True,
    clock=time.perf_counter,
)
SETTINGS = {setting.name: setting for setting in (TINY, SD14, VC2)}
