"""Moving scenes for pretraining, and first frames of them beside, as the posterior of an autoencoder."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from rlr.io.shape import check_shape
from rlr.io.weights import read_archive, save_whole
from rlr.toy.data.scenes import Batches, Stream, Table
from rlr.toy.world.motion import parse_video
from rlr.toy.world.prompts import held_out_video_prompts, training_video_prompts
from rlr.toy.world.videos import draw_videos

CHUNK = 64
TABLES = {"tables": [{"mean": Tensor, "std": Tensor, "captions": list}]}
"""What the file of encoded videos must hold."""

Batch = dict[str, Table]
"""``clips`` and ``stills``, or one of them."""


class ZippedStreams(IterableDataset):
    """Several endless streams, a batch of each at a time."""

    def __init__(self, streams: dict[str, Stream]) -> None:
        self.streams = streams

    def __iter__(self) -> Iterator[Batch]:
        for batches in zip(*self.streams.values(), strict=True):
            yield dict(zip(self.streams, batches, strict=True))


class VideoRows(Dataset):
    """The rows of a table of videos in order, some at a time."""

    def __init__(self, table: Table, batch_size: int) -> None:
        self.batches = Batches(table, batch_size)

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, k: int) -> Batch:
        return {"clips": self.batches[k]}


class EncodedVideos(LightningDataModule):
    r"""Batches of ``clips`` and ``stills``, each of which has ``mean``, ``std`` and ``captions``.

    ``mean`` and ``std`` are float16, :math:`(B, F, 4, 8, 8)`, and not scaled; ``captions`` are B strings. A row of
    ``stills`` is the *first* frame of a video, :math:`F = 1`, with its caption: there, what moves left stands to the right.

    Args:
        autoencoder: A folder in the layout of diffusers.
        size: How many clips to render for training.
        batch_size: Clips of a batch; 0 for none.
        seed: Decides captions, scenes and order.
        held_out: How many clips with held-out captions to render for validation.
        stills: First frames of a batch; 0 for none.
        cache: A file that keeps what was rendered and encoded, for another run of the same settings.

    Raises:
        ValueError: If a batch has neither.
    """

    def __init__(
        self,
        autoencoder: str,
        size: int = 8000,
        batch_size: int = 16,
        seed: int = 0,
        held_out: int = 48,
        stills: int = 0,
        cache: str | None = None,
    ) -> None:
        if batch_size + stills < 1:
            raise ValueError("EncodedVideos would make empty batches: batch_size and stills are 0; set one of them")
        super().__init__()
        self.autoencoder, self.size, self.batch_size = autoencoder, size, batch_size
        self.cache = Path(cache) if cache else None
        self.seed, self.held_out, self.stills = seed, held_out, stills
        self.training: Table = {}
        self.validation: Table = {}

    def setup(self, stage: str) -> None:
        """Renders and encodes once, however often it is called."""
        if not self.training:
            captions = training_video_prompts(self.size, self.seed), held_out_video_prompts(self.held_out, self.seed)
            self.training, self.validation = self._kept(captions) or self._keep([self.table(c) for c in captions])

    def _kept(self, captions: tuple[list[str], list[str]]) -> list[Table]:
        """The tables in the file, or none, if it is not there or of other settings."""
        if self.cache is None or not self.cache.exists():
            return []
        remedy = "delete it, and it is made again"
        kept = read_archive(self.cache, remedy=remedy)
        check_shape(kept, TABLES, str(self.cache), remedy)
        same = (kept.get("seed"), kept.get("encoder")) == (self.seed, self._encoder)
        return kept["tables"] if same and [t.get("captions") for t in kept["tables"]] == list(captions) else []

    def _keep(self, tables: list[Table]) -> list[Table]:
        if self.cache is not None:
            save_whole(self.cache, {"seed": self.seed, "encoder": self._encoder, "tables": tables})
        return tables

    @property
    def _encoder(self) -> str:
        """A digest of the autoencoder's weights."""
        digest = sha256()
        for path in sorted(Path(self.autoencoder).glob("*.safetensors")):
            digest.update(path.read_bytes())
        return digest.hexdigest()

    @torch.no_grad()
    def table(self, captions: list[str]) -> Table:
        """Encodes the videos with these captions in chunks."""
        encoder = AutoencoderKL.from_pretrained(self.autoencoder, torch_dtype=torch.float32).eval()
        means, stds = [], []
        for pixels in draw_videos([parse_video(caption) for caption in captions], self.seed).split(CHUNK):
            posterior = encoder.encode(pixels.flatten(0, 1) / 127.5 - 1).latent_dist
            means.append(posterior.mean.half().unflatten(0, pixels.shape[:2]))
            stds.append(posterior.std.half().unflatten(0, pixels.shape[:2]))
        return {"mean": torch.cat(means), "std": torch.cat(stds), "captions": captions}

    def first_frames(self) -> Table:
        """The first frame of every training clip, with its caption."""
        return {k: column[:, :1] if isinstance(column, Tensor) else column for k, column in self.training.items()}

    def train_dataloader(self) -> DataLoader:
        """The endless streams, from the trainer's step on."""
        parts = {"clips": (self.training, self.batch_size), "stills": (self.first_frames(), self.stills)}
        streams = {
            name: Stream.following(self.trainer, table, rows, self.seed)
            for name, (table, rows) in parts.items()
            if rows
        }
        return DataLoader(ZippedStreams(streams), batch_size=None)

    def val_dataloader(self) -> DataLoader:
        """The held-out videos, once."""
        return DataLoader(VideoRows(self.validation, 24), batch_size=None)
