"""Images of the built-in world with their captions, as an endless stream for pretraining.

A fixed set of scenes is rendered when the stage is set up. Batch ``s`` of the stream is drawn from it by a generator
seeded with ``(seed, s)``, and the stream starts at the trainer's own step: a resumed run sees exactly the batches that
an uninterrupted one would have seen.
"""

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKL
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from rlr.toy.world.caption import parse
from rlr.toy.world.prompts import held_out_prompts, training_prompts
from rlr.toy.world.render import render
from rlr.toy.world.scene import place

Table = dict[str, Tensor | list[str]]
"""Columns of equal length: tensors with a leading axis, or captions."""

CHUNK = 512


def draw_images(captions: list[str], seed: int) -> Tensor:
    """One random scene for each caption, rendered; the k-th depends on ``seed``, ``k`` and its caption only.

    Returns:
        Pixels of 0 to 255, uint8, (N, 3, 32, 32).
    """
    scenes = [place(parse(caption), np.random.default_rng((seed, k, 1))) for k, caption in enumerate(captions)]
    chunks = [render(scenes[i : i + CHUNK]) for i in range(0, len(scenes), CHUNK)]
    return torch.cat([(chunk * 255).round().to(torch.uint8) for chunk in chunks])


def rows(table: Table, index: np.ndarray) -> Table:
    """The rows of ``table`` that ``index`` names, with bytes as floats in [0, 1]."""
    out: Table = {}
    for name, column in table.items():
        if isinstance(column, Tensor):
            chosen = column[torch.from_numpy(index)]
            out[name] = chosen.float() / 255 if chosen.dtype == torch.uint8 else chosen
        else:
            out[name] = [column[i] for i in index]
    return out


class Stream(IterableDataset):
    """Endless batches: the ``s``-th is a function of the seed and ``s`` alone."""

    def __init__(self, table: Table, batch_size: int, seed: int, start: Callable[[], int], stride: int = 1) -> None:
        """Batches of ``table``, from number ``start()`` on and every ``stride``-th (one for each process)."""
        self.table, self.batch_size, self.seed = table, batch_size, seed
        self.start, self.stride = start, stride
        self.length = len(next(iter(table.values())))

    @classmethod
    def following(cls, trainer: Trainer | None, table: Table, batch_size: int, seed: int) -> "Stream":
        """Returns the stream from the trainer's own step on, with every process's own part of the batches."""
        assert trainer is not None
        batches = trainer.accumulate_grad_batches * trainer.world_size
        start: Callable[[], int] = lambda: trainer.global_step * batches + trainer.global_rank  # noqa: E731
        return cls(table, batch_size, seed, start, trainer.world_size)

    def __iter__(self) -> Iterator[Table]:
        for step in itertools.count(self.start(), self.stride):
            index = np.random.default_rng((self.seed, step)).integers(self.length, size=self.batch_size)
            yield rows(self.table, index)


class Batches(Dataset):
    """The rows of a table in order, ``batch_size`` at a time."""

    def __init__(self, table: Table, batch_size: int) -> None:
        self.table, self.batch_size = table, batch_size
        self.length = len(next(iter(table.values())))

    def __len__(self) -> int:
        return -(-self.length // self.batch_size)

    def __getitem__(self, k: int) -> Table:
        return rows(self.table, np.arange(k * self.batch_size, min((k + 1) * self.batch_size, self.length)))


class Scenes(LightningDataModule):
    """Batches of ``pixels`` in [0, 1], (B, 3, 32, 32), and ``captions``, B strings."""

    def __init__(self, size: int = 24000, batch_size: int = 16, seed: int = 0, held_out: int = 250) -> None:
        """Renders ``size`` scenes for training and ``held_out`` with held-out captions for validation."""
        super().__init__()
        self.size, self.batch_size, self.seed, self.held_out = size, batch_size, seed, held_out
        self.training: Table = {}
        self.validation: Table = {}

    def setup(self, stage: str) -> None:
        """Renders once, however often it is called."""
        if not self.training:
            self.training = self.table(training_prompts(self.size, self.seed))
            self.validation = self.table(held_out_prompts(self.held_out, self.seed))

    def table(self, captions: list[str]) -> Table:
        """The columns of the stream for these captions."""
        return {"pixels": draw_images(captions, self.seed), "captions": captions}

    def train_dataloader(self) -> DataLoader:
        """The endless stream, from the trainer's step on."""
        stream = Stream.following(self.trainer, self.training, self.batch_size, self.seed)
        return DataLoader(stream, batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The held-out images, once."""
        return DataLoader(Batches(self.validation, 50), batch_size=None)


class EncodedScenes(Scenes):
    """Scenes as the posterior of an autoencoder: ``mean`` and ``std``, (B, 4, 8, 8), and ``captions``.

    The latents are not scaled; :attr:`spread` is their standard deviation over the training scenes.
    """

    def __init__(
        self, autoencoder: str, size: int = 40000, batch_size: int = 32, seed: int = 0, held_out: int = 250
    ) -> None:
        """``autoencoder`` is a folder in the layout of diffusers."""
        super().__init__(size, batch_size, seed, held_out)
        self.autoencoder = autoencoder

    @torch.no_grad()
    def table(self, captions: list[str]) -> Table:
        """Encodes the images in chunks."""
        encoder = AutoencoderKL.from_pretrained(self.autoencoder, torch_dtype=torch.float32).eval()
        pixels = draw_images(captions, self.seed)
        chunks = [encoder.encode(chunk / 127.5 - 1).latent_dist for chunk in pixels.split(CHUNK)]
        mean, std = torch.cat([c.mean for c in chunks]), torch.cat([c.std for c in chunks])
        return {"mean": mean, "std": std, "captions": captions}

    @property
    def spread(self) -> float:
        """Standard deviation of one entry of a training latent: its inverse is the scaling factor."""
        mean, std = self.training["mean"], self.training["std"]
        assert isinstance(mean, Tensor)
        assert isinstance(std, Tensor)
        return float((mean.var() + std.square().mean()).sqrt())
