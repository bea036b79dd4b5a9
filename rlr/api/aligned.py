"""An aligned model: images of it, and its weights for other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.evaluation.images import to_image
from rlr.models.export import Card, exporter_of
from rlr.modules.sampling import sample
from rlr.seeding import Stream, spawn


@dataclass(frozen=True)
class Aligned:
    """An aligned model.

    Args:
        chain: The model with its sampler.
        card: The facts of the training for model cards.
        history: The logged numbers of each update, such as ``reward/mean``.
        pipe: The pipeline of diffusers that was aligned, if it was one; it makes the aligned images itself.
    """

    chain: Chain
    card: Card = field(default_factory=Card)
    history: Sequence[Mapping[str, float]] = ()
    pipe: Any = None

    def sample(self, prompts: str | Sequence[str], seed: int = 0, base: bool = False) -> Any:
        r"""Returns an image of each prompt, or of one prompt its image.

        Args:
            prompts: One prompt, or several.
            seed: Decides the noise; the same seed gives the same noise for both models.
            base: Whether to sample from the model before training.

        Returns:
            Pillow's images; of a video model, pixels in [0, 1] with shape :math:`(F, 3, H, W)`.
        """
        texts = [prompts] if isinstance(prompts, str) else list(prompts)
        found = [to_image(pixels) if pixels.ndim == 3 else pixels for pixels in self.pixels(texts, seed, base)]
        return found[0] if isinstance(prompts, str) else found

    def pixels(self, prompts: Sequence[str], seed: int = 0, base: bool = False) -> Tensor:
        r"""Returns a sample of each prompt as pixels in [0, 1], with shape :math:`(B, *)`, on the CPU.

        Args:
            prompts: The prompts; they are sampled one by one.
            seed: Decides the noise.
            base: Whether to sample from the model before training.
        """
        seeds = [spawn(seed, Stream.EVALUATION, k, 0) for k in range(len(prompts))]
        with torch.no_grad():
            if not base:
                return self._pixels(prompts, seeds)
            with self.chain.model.reference():
                return self._pixels(prompts, seeds)

    def save_lora(self, folder: str | Path) -> list[Path]:
        """Writes the LoRA for ``load_lora_weights`` of diffusers, and a model card; the same as ``export(folder)``.

        Raises:
            ValueError: If the reloaded model makes other images, or the images of the base model.
        """
        return self.export(folder)

    def export(self, folder: str | Path, to: str = "diffusers") -> list[Path]:
        """Writes the weights in the format of another program, and a model card.

        Args:
            folder: The folder, which must be empty or not exist.
            to: The format: diffusers, peft, kohya, comfyui, merged, safetensors-single or videocrafter.

        Returns:
            The files that were written.

        Raises:
            ValueError: If there is no such format, the model does not fit it, or the reloaded model makes other images.
        """
        return exporter_of(to).write(self.chain.model, folder, self.card)

    def _pixels(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        rows = [sample(self.chain, [prompt], [seed]) for prompt, seed in zip(prompts, seeds, strict=True)]
        return torch.cat(rows).cpu()
