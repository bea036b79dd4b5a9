"""An aligned model: images of it, and its weights for other programs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlr.api.run_files import check_free, write_files
from rlr.chain import Chain
from rlr.evaluation.images import to_image
from rlr.models.export import Card, exporter_of
from rlr.modules.sampling import sample
from rlr.records.run_page import write_page
from rlr.rewards import Reward
from rlr.seeding import Stream, spawn


@dataclass(frozen=True)
class Aligned:
    """An aligned model.

    Args:
        chain: The model with its sampler.
        card: The facts of the training for model cards.
        history: The logged numbers of each update, such as ``reward/mean``.
        pipe: The pipeline of diffusers that was aligned, if it was one; it makes the aligned images itself.
        reward: The reward of the training; None if it is not known.
        prompts: The prompts of the training.
        folder: The folder of the run, if it has one.
    """

    chain: Chain
    card: Card = field(default_factory=Card)
    history: Sequence[Mapping[str, float]] = ()
    pipe: Any = None
    reward: Reward | None = None
    prompts: Sequence[str] = ()
    folder: Path | None = None

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

    def page(self, folder: str | Path | None = None) -> Path:
        """Writes the page of the run, ``index.html``, and returns its path.

        What the folder lacks is written first: the numbers of the updates, and samples of the first prompts before and after
        training with their rewards.

        Args:
            folder: The folder, by default that of the run.

        Raises:
            ValueError: If the run has no folder and none is named, or the folder holds another run.
        """
        place = self.folder if folder is None else Path(folder)
        if place is None:
            raise ValueError(
                "page: expected the folder of a run, found a run that was trained without one; name a folder, such as "
                'page("runs/mine")'
            )
        if self.folder is None or place.resolve() != self.folder.resolve():
            check_free(place, "page")
        write_files(place, self.chain, self.history, self.card, self.reward, self.prompts)
        return write_page(place)

    def _pixels(self, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
        rows = [sample(self.chain, [prompt], [seed]) for prompt, seed in zip(prompts, seeds, strict=True)]
        return torch.cat(rows).cpu()
