"""Pretraining of the built-in world's learned rewards: a tiny CLIP in the format of one or the other author."""

from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy
from torchvision.transforms.functional import gaussian_blur

from rlr.toy.pretraining.base import Pretraining
from rlr.toy.world.caption import altered, parse

CLAIMS = ("count", "color", "shape", "place", "background")


def degrade(pixels: Tensor, vae: Any, noise: Generator, strength: float = 0.6) -> Tensor:
    """Images as a generator would get them slightly wrong.

    A half is decoded from a latent with noise of up to ``strength`` of its spread, a quarter is blurred, and all get
    pixel noise, so that the reward judges generated images and not the renderer's sharp edges.

    Args:
        pixels: Images in [0, 1], (B, 3, H, H).
        vae: Autoencoder of the world.
        noise: Source of all randomness.
        strength: Largest standard deviation of the latent noise, as a multiple of the latents' own.

    Returns:
        Images in [0, 1], (B, 3, H, H).
    """
    out, half = pixels.clone(), len(pixels) // 2
    latents = vae.encode(pixels[:half] * 2 - 1).latent_dist.mode()
    size = torch.rand(half, 1, 1, 1, generator=noise).square() * strength * latents.std()
    latents = latents + size * torch.randn(latents.shape, generator=noise)
    out[:half] = vae.decode(latents).sample / 2 + 0.5
    blurred = slice(half, half + len(pixels) // 4)
    out[blurred] = gaussian_blur(pixels[blurred], [3, 3], [float(0.3 + 0.6 * torch.rand(1, generator=noise))])
    grain = 0.04 * torch.rand(len(out), 1, 1, 1, generator=noise) * torch.randn(out.shape, generator=noise)
    return (out + grain).clamp(0, 1)


class Contrastive(Pretraining):
    r"""Learns a similarity :math:`s(x, c)`, the cosine of image and caption features times a learned scale.

    Minimizes the contrastive loss of CLIP (Radford et al. 2021) in which every image must also prefer its caption
    to hard negatives, the same caption with exactly one claim altered:
    :math:`-\log \mathrm{softmax}_{c \in C \cup N(x)} s(x, c)` and :math:`-\log \mathrm{softmax}_{x \in X} s(x, c)`.
    """

    def __init__(self, clip: nn.Module, autoencoder: str, lr: float, warmup: int, seed: int) -> None:
        """``autoencoder`` is the folder of the autoencoder whose artifacts the reward must see through."""
        super().__init__(nn.ModuleDict({"clip": clip}), lr, warmup, weight_decay=0.05, seed=seed)
        self.autoencoder = autoencoder
        self.vae: Any = None

    @abstractmethod
    def images(self, clip: Any, pixels: Tensor) -> Tensor:
        """Unit features of images in [0, 1], (B, D)."""

    @abstractmethod
    def texts(self, clip: Any, captions: list[str]) -> Tensor:
        """Unit features of captions, (B, D)."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Writes the averaged CLIP in half precision, in the format of its authors."""

    def setup(self, stage: str) -> None:
        """Loads the autoencoder, which is no part of the trained weights."""
        vae = AutoencoderKL.from_pretrained(self.autoencoder, torch_dtype=torch.float32)
        # kept out of the module's own list, hence out of its checkpoints
        object.__setattr__(self, "vae", vae.eval().requires_grad_(False))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of the class on a batch of ``pixels`` in [0, 1] and ``captions``."""
        with torch.no_grad():
            pixels = degrade(batch["pixels"], self.vae, self.noise())
        captions: list[str] = batch["captions"]
        negatives, owners = self.negatives(captions, self.seed, self.global_step)
        clip: Any = self.networks["clip"]
        images, texts = self.images(clip, pixels), self.texts(clip, self.said(captions + negatives))
        logits = clip.logit_scale.exp() * images @ texts.T
        n = len(captions)
        same = torch.tensor([[a == b for b in captions] for a in captions]) & ~torch.eye(n, dtype=torch.bool)
        foreign = torch.tensor(owners)[None] != torch.arange(n)[:, None]
        by_image = logits.masked_fill(torch.cat([same, foreign], 1).to(self.device), -torch.inf)
        by_text = logits[:, :n].T.masked_fill(same.to(self.device), -torch.inf)
        target = torch.arange(n, device=self.device)
        loss = cross_entropy(by_image, target) + cross_entropy(by_text, target)
        self.log_dict({"train/loss": loss, "train/right": (by_image.argmax(1) == target).float().mean()})
        return loss

    def said(self, captions: list[str]) -> list[str]:
        """The captions as training says them; here as they are."""
        return captions

    @staticmethod
    def negatives(captions: list[str], seed: int, step: int) -> tuple[list[str], list[int]]:
        """Hard negatives that training may see, and to which of the captions each belongs."""
        rng = np.random.default_rng((seed, step, 2))
        pairs = [(k, spec) for k, c in enumerate(captions) for spec in altered(parse(c), rng).values()]
        kept = [(k, spec.caption) for k, spec in pairs if spec.for_training]
        return [caption for _, caption in kept], [k for k, _ in kept]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs how often a reconstruction of a held-out image prefers its caption to each kind of altered one."""
        pixels = self.vae.decode(self.vae.encode(batch["pixels"] * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
        for claim, wins in self.wins(pixels.clamp(0, 1), batch["captions"], batch_idx).items():
            self.log(f"val/{claim}", wins.mean(), batch_size=len(wins))

    def wins(self, pixels: Tensor, captions: list[str], seed: int) -> dict[str, Tensor]:
        """For each of :data:`CLAIMS`, whether each image prefers its caption to the altered one."""
        clip = self.average["clip"]
        rng = np.random.default_rng(seed)
        others = [altered(parse(caption), rng) for caption in captions]
        images = self.images(clip, pixels)
        own = (images * self.texts(clip, captions)).sum(1)
        out = {}
        for claim in CLAIMS:
            index = [k for k, other in enumerate(others) if claim in other]
            text = self.texts(clip, [others[k][claim].caption for k in index])
            out[claim] = (own[index] > (images[index] * text).sum(1)).float()
        return out
