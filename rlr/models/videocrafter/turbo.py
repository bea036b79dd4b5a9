r"""T2V-Turbo: VideoCrafter2 as a consistency model, by the LoRA that its authors publish."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from diffusers.models.embeddings import get_timestep_embedding
from torch import Tensor

from rlr.io.hub import Published, find
from rlr.io.weights import blank
from rlr.models.videocrafter.architecture import Architecture
from rlr.models.videocrafter.checkpoint import PREFIXES, Complete, Parts, as_written, load_official, within
from rlr.models.videocrafter.keys import unet_layout
from rlr.models.videocrafter.lora_list import add_lora, read_factors
from rlr.models.videocrafter.network import GuidedUNetConfig
from rlr.schedules import DiscreteSchedule, distilled

FILE, UNET = Published("unet_lora.pt"), PREFIXES["unet"]
PROJECTION = "time_cond_proj.weight"
"""The layer that reads the guidance scale, under its authors' name."""
WIDTH = 256
"""The width of the embedding of the guidance scale."""


class T2VTurbo:
    r"""What makes T2V-Turbo of VideoCrafter2: a LoRA on all layers, a guidance scale as input, and its noise schedule.

    The denoiser reads the guidance scale :math:`w` as :math:`s(\tau) + P e(w)` instead of the sinusoids :math:`s(\tau)` of
    the step, with the sinusoids :math:`e(w)` of :math:`1000 w`. A step costs one evaluation of it. The signal is not rescaled,
    and the last state has no noise. The sampler is :class:`~rlr.samplers.Consistency` with 4 to 8 steps.

    The first value of :math:`P` is not published: neither file has it. Its authors' programs draw it without a seed,
    uniformly in :math:`\pm 1/16`, each time that they load the model, and add the LoRA's part. Here ``seed`` decides it.

    References:
        | T2V-Turbo: Breaking the Quality Bottleneck of Video Consistency Model with Mixed Reward Feedback (Li et al., 2024)
        | https://arxiv.org/abs/2405.18750
        | app.py, pipeline/t2v_turbo_vc2_pipeline.py and lvdm/modules/networks/openaimodel3d.py of
        | https://github.com/Ji4chenLi/t2v-turbo

    Args:
        path: The file ``unet_lora.pt``, a folder that holds it, or a hub id; None for a VideoCrafter whose own file holds the
            weights of T2V-Turbo, as ``OfficialVideoCrafter`` writes it.
        guidance: The guidance scale :math:`w`; 5 to 15 in the training, 7.5 in its authors' programs.
        seed: Decides the first value of :math:`P`.
        origin: The number :math:`S` of times of which a sampler's are every :math:`\lfloor S / T \rfloor`-th: 200 in its authors'
            demo, 50 in the training.
    """

    def __init__(
        self,
        path: str | None = "jiachenli-ucsb/T2V-Turbo-VC2",
        guidance: float = 7.5,
        seed: int = 0,
        origin: int = 200,
    ) -> None:
        if not guidance > 0 or not 1 <= origin <= 1000:
            raise ValueError(
                f"T2VTurbo: expected guidance above 0 and origin in 1 … 1000, got {guidance} and {origin}; its authors take 7.5 "
                "and 200"
            )
        self.path = path
        self.guidance = guidance
        self.seed = seed
        self.origin = origin

    def architecture(self, base: Architecture, file: Path) -> Architecture:
        """Returns the sizes of the denoiser that reads a guidance scale.

        Args:
            base: The sizes of the model of the file.
            file: The file, for the message.

        Raises:
            ValueError: If the file reads a guidance scale already and a LoRA is to be added, or neither.
        """
        reads = base.unet.guidance is not None
        if reads is (self.path is not None):
            expected, found, remedy = (
                ("VideoCrafter2", "with", "set variant.path to null")
                if reads
                else ("T2V-Turbo's weights", "without", "set variant.path to its LoRA")
            )
            raise ValueError(
                f"{file}: expected {expected}, found a denoiser {found} a guidance scale as input; {remedy}"
            )
        return base if reads else replace(base, unet=GuidedUNetConfig(**vars(base.unet), time_cond_proj_dim=WIDTH))

    def load(self, file: Path, architecture: Architecture, dtype: torch.dtype) -> Parts:
        """Returns the parts of the model.

        Args:
            file: The file of VideoCrafter2.
            architecture: What :meth:`architecture` returned.
            dtype: The type of the networks.

        Raises:
            ValueError: If a file holds something else.
        """
        parts = load_official(file, architecture, dtype, self._completion(architecture, dtype))
        spacing = partial(distilled, origin=self.origin)
        return replace(parts, schedule=DiscreteSchedule(parts.schedule.alphas_cumprod, spacing, offset=0, clean=1.0))

    def embedding(self, count: int, device: torch.device) -> Tensor:
        r"""Returns :math:`e(w)` for ``count`` samples, with shape :math:`(B, 256)`."""
        return get_timestep_embedding(torch.full((count,), 1000 * self.guidance, device=device), WIDTH)

    def _completion(self, architecture: Architecture, dtype: torch.dtype) -> Complete:
        """Returns what adds the LoRA to the weights of VideoCrafter2's file."""
        if self.path is None:
            return as_written
        lora, projection = find(self.path, [FILE]), self._projection(architecture.unet.model_channels)
        network = unet_layout(architecture.unet).to_theirs(blank(architecture.build_unet).state_dict())

        def complete(state: dict[str, Tensor]) -> dict[str, Tensor]:
            unet = within(state, UNET) | {PROJECTION: projection}
            found = add_lora(unet, network, read_factors(lora), lora, dtype)
            return state | {UNET + name: weight for name, weight in found.items()}

        return complete

    def _projection(self, channels: int) -> Tensor:
        r"""Returns the first value of :math:`P`, drawn as ``torch.nn.Linear`` draws it, with shape :math:`(W, 256)`."""
        bound = WIDTH**-0.5
        return torch.empty(channels, WIDTH).uniform_(-bound, bound, generator=torch.Generator().manual_seed(self.seed))
