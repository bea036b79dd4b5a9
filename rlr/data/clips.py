"""Moving scenes for pretraining, as the posterior of an autoencoder."""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKL
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from rlr.data.scenes import Batches, Stream, Table
from rlr.world.clips import draw_clips
from rlr.world.motion import parse_clip
from rlr.world.prompts import held_out_clips, training_clips

CHUNK = 64


class EncodedClips(LightningDataModule):
    r"""Batches of ``mean`` and ``std``, :math:`(B, F, 4, 8, 8)` in float16, and ``captions``, B strings.

    The latents are not scaled.

    Args:
        autoencoder: A folder in the layout of diffusers.
        size: How many clips to render for training.
        batch_size: Rows of a batch.
        seed: Decides captions, scenes and order.
        held_out: How many clips with held-out captions to render for validation.
        stills: Whether a row is one frame, :math:`F = 1`, with the caption of its clip.
    """

    def __init__(
        self,
        autoencoder: str,
        size: int = 8000,
        batch_size: int = 16,
        seed: int = 0,
        held_out: int = 48,
        stills: bool = False,
    ) -> None:
        super().__init__()
        self.autoencoder, self.size, self.batch_size = autoencoder, size, batch_size
        self.seed, self.held_out, self.stills = seed, held_out, stills
        self.training: Table = {}
        self.validation: Table = {}

    def setup(self, stage: str) -> None:
        """Renders and encodes once, however often it is called."""
        if not self.training:
            self.training = self._rows(self.table(training_clips(self.size, self.seed)))
            self.validation = self.table(held_out_clips(self.held_out, self.seed))

    @torch.no_grad()
    def table(self, captions: list[str]) -> Table:
        """Encodes the clips of these captions in chunks."""
        encoder = AutoencoderKL.from_pretrained(self.autoencoder, torch_dtype=torch.float32).eval()
        means, stds = [], []
        for pixels in draw_clips([parse_clip(caption) for caption in captions], self.seed).split(CHUNK):
            posterior = encoder.encode(pixels.flatten(0, 1) / 127.5 - 1).latent_dist
            means.append(posterior.mean.half().unflatten(0, pixels.shape[:2]))
            stds.append(posterior.std.half().unflatten(0, pixels.shape[:2]))
        return {"mean": torch.cat(means), "std": torch.cat(stds), "captions": captions}

    def _rows(self, table: Table) -> Table:
        if not self.stills:
            return table
        frames = len(table["mean"][0])
        captions = [caption for caption in table["captions"] for _ in range(frames)]
        tensors = {name: column.flatten(0, 1)[:, None] for name, column in table.items() if isinstance(column, Tensor)}
        return {**tensors, "captions": captions}

    def train_dataloader(self) -> DataLoader:
        """The endless stream, from the trainer's step on."""
        trainer = self.trainer
        assert trainer is not None
        steps = trainer.accumulate_grad_batches * trainer.world_size
        start: Callable[[], int] = lambda: trainer.global_step * steps + trainer.global_rank  # noqa: E731
        return DataLoader(Stream(self.training, self.batch_size, self.seed, start, trainer.world_size), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The held-out clips, once."""
        return DataLoader(Batches(self.validation, 24), batch_size=None)
