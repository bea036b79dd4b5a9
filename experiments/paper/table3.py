"""The paper's Table 3: videos after training with each method."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from experiments.base import Figure, Row, Run, Table
from experiments.latents import Latents
from experiments.marks import SAMPLES, marked
from experiments.methods import (
    CLIP_LATENTS,
    CLIP_METHODS,
    CLIP_TARGETS,
    ITERATIONS,
    VC2_LATENTS,
    VC2_METHODS,
    VC2_TARGET,
)
from experiments.paper.comparison import Comparison, Plan
from experiments.paper.tuning_video import tuned
from experiments.reporting import details, overview
from experiments.settings import Setting
from experiments.summary import grouped, mean_of
from experiments.vbench import AVERAGE, Base, Optimized, Trained, VBenchRun, Videos
from rlr.evaluation.vbench.dimensions import SIX
from rlr.evaluation.vbench.report import HEAD, PAPER
from rlr.evaluation.vbench.scoring import Judge
from rlr.evaluation.vbench.weights import cache

_HEAD = ("method", *HEAD)
_PAPER = [(method, *(f"{number:.2f}" for number in row)) for method, row in PAPER.items()]
_LATENTS = "experiments/configs/tiny_latents.yaml"

VC2_SAMPLES = 3600
"""The samples of a run on VideoCrafter 2: the 450 updates of VADER's script with 8 samples each."""


class Table3(Comparison):
    """Base, DDPO, VADER, DOODL and RLR on videos."""

    name = "table3"
    title = "Table 3: text-to-video"
    note = (
        "In the setting tiny, each method trains the built-in video model for TinyHPSv2 of a random frame, and is evaluated on "
        "40 held-out prompts × 2 samples: the reward of all frames, the exact check of motion, the dynamic degree by the tracker "
        "of the exact check, and diversity. VBench's six dimensions are not measured there, because the weights that they need "
        "were not available. In the setting vc2, VideoCrafter 2 is trained for HPSv2 of a random frame, and VBench scores 5 videos "
        "of each of its 251 prompts. Learning rates are those of the experiment `tuning_video`, in vc2 those of the configs. Means "
        "± standard errors are over training seeds.\n\n"
        "DOODL trains no weights: it optimizes the latent of each sample for the reward that also scores the sample. In the "
        "setting tiny it has the first 20 of the held-out prompts × 1 sample. Its samples use 10 steps of EDICT and not "
        "of DDIM, so its base is the samples of the same latents by EDICT. Its updates are iterations, and its reward calls and "
        "seconds are those of these 20 samples; every further sample costs the same again. In the setting vc2 it samples one video "
        "of each prompt, because each video takes 10,000 forward and 5,000 backward passes of the network."
    )
    published: ClassVar[Sequence[Table]] = (Table("Table 3", _HEAD, _PAPER),)
    plans: ClassVar[Mapping[str, Plan]] = {
        "tiny": Plan(
            {"TinyVideo": CLIP_METHODS},
            CLIP_TARGETS,
            "experiments/configs/tiny_video.yaml",
            samples=256,
            every=256,
            rates=tuned,
        )
    }

    def runs(self, setting: Setting, seeds: Sequence[int]) -> Sequence[Run]:
        known = {"tiny": self._world, "vc2": self._videocrafter}
        if setting.name not in known:
            raise ValueError(f"{self.name} has no setting {setting.name}; choose from {', '.join(known)}")
        return list(known[setting.name](setting, seeds))

    def _world(self, setting: Setting, seeds: Sequence[int]) -> Iterator[Run]:
        method = self.plans[setting.name].rates(setting)(CLIP_LATENTS)
        for seed in seeds:
            yield from super().runs(setting, (seed,))
            for target in CLIP_TARGETS:
                key: dict[str, str | int] = {
                    "model": "TinyVideo by EDICT",
                    "reward": target.name,
                    "method": method.name,
                    "seed": seed,
                }
                run = Latents(method.with_reward(target), _LATENTS, seed).as_run(setting, self.name, key)
                yield marked(run, {ITERATIONS: SAMPLES}, target)

    def _videocrafter(self, setting: Setting, seeds: Sequence[int]) -> Iterator[Run]:
        def run(method: str, seed: int, videos: Videos, samples: int) -> Run:
            key: dict[str, str | int] = {
                "model": "VideoCrafter2",
                "reward": VC2_TARGET.name,
                "method": method,
                "seed": seed,
            }
            return VBenchRun(videos, samples).as_run(setting, self.name, key)

        yield run("base", 0, Base(setting.config), setting.samples)
        for seed in seeds:
            for method in (method.with_reward(VC2_TARGET) for method in VC2_METHODS):
                yield run(method.name, seed, Trained(method, seed, method.updates(VC2_SAMPLES)), setting.samples)
            yield run(VC2_LATENTS.name, seed, Optimized(VC2_LATENTS.with_reward(VC2_TARGET), seed, 1), 1)

    def missing(self, setting: Setting) -> str | None:
        """Returns what the setting lacks, or VBench on a GPU, before hours of training."""
        if (lacking := super().missing(setting)) or not setting.gpu:
            return lacking
        try:
            Judge(cache(), setting.device.type).check(SIX)
        except (OSError, ValueError) as error:
            return str(error)
        return None

    def report(self, rows: Sequence[Row]) -> Sequence[Table | Figure]:
        if any(AVERAGE in row for row in rows):
            return [self._vbench(rows)]
        return [overview(rows, SAMPLES, "The reward"), *details(rows, SAMPLES, "At equal samples")]

    @staticmethod
    def _vbench(rows: Sequence[Row]) -> Table:
        names = (*(dimension.name for dimension in SIX), AVERAGE)
        groups = grouped(rows, "method").items()
        lines = [
            (str(method), *(mean_of(group, name) for name in names), str(len(group))) for (method,), group in groups
        ]
        return Table("VBench", (*_HEAD, "runs"), lines)
