"""Pretraining of the built-in world's learned reward: a tiny CLIP, used as PickScore is."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Generator, Tensor, nn
from torch.nn.functional import cross_entropy, normalize
from torchvision.transforms.functional import gaussian_blur
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from rlr.modules.pretraining.base import Pretraining
from rlr.world.caption import altered, parse
from rlr.world.tokenizer import LENGTH, build_tokenizer

CLAIMS = ("count", "colour", "shape", "place", "background")


def build_clip(tokenizer: CLIPTokenizer, width: int, layers: int, text_layers: int) -> CLIPModel:
    """A CLIP for 32-pixel pictures in patches of 4."""
    tower: dict[str, Any] = {"hidden_size": width, "intermediate_size": 3 * width, "num_attention_heads": 4}
    special = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    text = {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH, "num_hidden_layers": text_layers}
    vision = {"image_size": 32, "patch_size": 4, "num_hidden_layers": layers}
    return CLIPModel(CLIPConfig(text_config=tower | text | special, vision_config=tower | vision, projection_dim=width))


def degrade(pixels: Tensor, vae: Any, noise: Generator, strength: float = 0.6) -> Tensor:
    """Pictures as a generator would get them slightly wrong.

    A half is decoded from a latent with noise of up to ``strength`` of its spread, a quarter is blurred, and all get
    pixel noise, so that the reward judges generated pictures and not the renderer's sharp edges.

    Args:
        pixels: Pictures in [0, 1], (B, 3, H, H).
        vae: Autoencoder of the world.
        noise: Source of all randomness.
        strength: Largest standard deviation of the latent noise, as a multiple of the latents' own.

    Returns:
        Pictures in [0, 1], (B, 3, H, H).
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


class Reward(Pretraining):
    r"""Learns a similarity :math:`s(x, c)`, the cosine of picture and caption features times a learned scale.

    Minimises the contrastive loss of CLIP (Radford et al. 2021) in which every picture must also prefer its caption
    to hard negatives, the same caption with exactly one claim altered:
    :math:`-\log \mathrm{softmax}_{c \in C \cup N(x)} s(x, c)` and :math:`-\log \mathrm{softmax}_{x \in X} s(x, c)`.
    """

    def __init__(
        self,
        autoencoder: str,
        width: int = 96,
        layers: int = 4,
        text_layers: int = 2,
        lr: float = 1e-3,
        warmup: int = 200,
        seed: int = 0,
    ) -> None:
        """``autoencoder`` is the folder of the autoencoder whose artefacts the reward must see through."""
        tokenizer = build_tokenizer()
        clip = build_clip(tokenizer, width, layers, text_layers)
        super().__init__(nn.ModuleDict({"clip": clip}), lr, warmup, weight_decay=0.05, seed=seed)
        self.tokenizer, self.autoencoder = tokenizer, autoencoder
        self.vae: Any = None
        self.save_hyperparameters()

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
        images, texts = self.images(clip, pixels), self.texts(clip, captions + negatives)
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

    @staticmethod
    def negatives(captions: list[str], seed: int, step: int) -> tuple[list[str], list[int]]:
        """Hard negatives that training may see, and to which of the captions each belongs."""
        rng = np.random.default_rng((seed, step, 2))
        pairs = [(k, spec) for k, c in enumerate(captions) for spec in altered(parse(c), rng).values()]
        kept = [(k, spec.caption) for k, spec in pairs if spec.for_training]
        return [caption for _, caption in kept], [k for k, _ in kept]

    def images(self, clip: Any, pixels: Tensor) -> Tensor:
        """Unit features of pictures in [0, 1], (B, D)."""
        hidden = clip.vision_model(pixel_values=pixels * 2 - 1).pooler_output
        return normalize(clip.visual_projection(hidden), dim=-1)

    def texts(self, clip: Any, captions: list[str]) -> Tensor:
        """Unit features of captions, (B, D)."""
        tokens = self.tokenizer(captions, padding=True, max_length=LENGTH, truncation=True, return_tensors="pt")
        hidden = clip.text_model(**tokens.to(self.device)).pooler_output
        return normalize(clip.text_projection(hidden), dim=-1)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs how often a reconstruction of a held-out picture prefers its caption to each kind of altered one."""
        pixels = self.vae.decode(self.vae.encode(batch["pixels"] * 2 - 1).latent_dist.mode()).sample / 2 + 0.5
        for claim, wins in self.wins(pixels.clamp(0, 1), batch["captions"], batch_idx).items():
            self.log(f"val/{claim}", wins.mean(), batch_size=len(wins))

    def wins(self, pixels: Tensor, captions: list[str], seed: int) -> dict[str, Tensor]:
        """For each of :data:`CLAIMS`, whether each picture prefers its caption to the altered one."""
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

    def export(self, folder: Path) -> None:
        """Writes the averaged CLIP in half precision with its processor, as PickScore is laid out."""
        size = {"height": 32, "width": 32}
        pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
        renormalised(self.average["clip"]).to(torch.float16).save_pretrained(folder)
        CLIPProcessor(image_processor=pictures, tokenizer=self.tokenizer).save_pretrained(folder)


@torch.no_grad()
def renormalised(clip: Any) -> Any:
    r"""Returns a copy of a CLIP of pixels :math:`2x - 1` that reads them as CLIP's processor normalises them.

    With :math:`y = (x - m) / s`, :math:`2x - 1 = 2s \, y + (2m - 1)`: the factor goes into the patches' filters, the offset
    into the positions, to which each patch is added.
    """
    clip = copy.deepcopy(clip)
    mean, std = torch.tensor(OPENAI_CLIP_MEAN), torch.tensor(OPENAI_CLIP_STD)
    embeddings = clip.vision_model.embeddings
    filters = embeddings.patch_embedding.weight
    embeddings.position_embedding.weight[1:] += torch.einsum("ochw,c->o", filters, (2 * mean - 1).to(filters))
    filters.mul_((2 * std).to(filters)[:, None, None])
    return clip
