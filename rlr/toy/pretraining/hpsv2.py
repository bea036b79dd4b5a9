"""Pretraining of the built-in world's second learned reward, in HPSv2's format: a tiny CLIP of open_clip."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import CLIP
from torch import Tensor
from torch.nn.functional import normalize

from rlr.io.json_file import write_json
from rlr.io.weights import write_state
from rlr.rewards.networks.hpsv2 import CONFIG, MERGES, WEIGHTS
from rlr.rewards.networks.preprocessing import normalize_pixels
from rlr.toy.pretraining.contrastive import Contrastive
from rlr.toy.world.motion import draw_motion, insert
from rlr.toy.world.tokenizer import LENGTH, open_clip_tokenizer, write_merges


def build_config(vocabulary: int, width: int, layers: int, text_layers: int) -> dict[str, Any]:
    """The configuration of a CLIP for 32-pixel images in patches of 4, as open_clip writes it."""
    heads = 4
    tower: dict[str, Any] = {"width": width, "mlp_ratio": 3.0}
    vision = {"image_size": 32, "patch_size": 4, "layers": layers, "head_width": width // heads}
    text = {"context_length": LENGTH, "vocab_size": vocabulary, "layers": text_layers, "heads": heads}
    return {"embed_dim": width, "vision_cfg": tower | vision, "text_cfg": tower | text}


class HPSv2(Contrastive):
    """The similarity of :class:`Contrastive`, with the towers of open_clip.

    Its seed, and those of its scenes, should be others than those of the first reward: it then errs elsewhere, and
    distinguishes a better image from one that exploits the first reward.
    """

    def __init__(
        self,
        autoencoder: str,
        width: int = 96,
        layers: int = 4,
        text_layers: int = 2,
        lr: float = 1e-3,
        warmup: int = 200,
        seed: int = 1,
    ) -> None:
        """``autoencoder`` is the folder of the autoencoder whose artifacts the reward must see through."""
        tokenizer = open_clip_tokenizer()
        self.config = build_config(tokenizer.vocab_size, width, layers, text_layers)
        super().__init__(CLIP(**self.config), autoencoder, lr, warmup, seed)
        self.tokenizer = tokenizer
        self.save_hyperparameters()

    def said(self, captions: list[str]) -> list[str]:
        """Half of the captions with a random motion, so that the score of a video's frame is that of its image."""
        rng = np.random.default_rng((self.seed, self.global_step, 3))
        return [insert(c, draw_motion(rng).caption) if rng.random() < 0.5 else c for c in captions]

    def images(self, clip: Any, pixels: Tensor) -> Tensor:
        """Unit features of images in [0, 1], (B, D)."""
        return clip.encode_image(normalize_pixels(pixels), normalize=True)

    def texts(self, clip: Any, captions: list[str]) -> Tensor:
        """Unit features of captions, (B, D)."""
        return normalize(clip.encode_text(self.tokenizer(captions).to(self.device)), dim=-1)

    def export(self, folder: Path) -> None:
        """Writes the averaged CLIP in half precision, its configuration and its table of merges."""
        state = self.average["clip"].state_dict()
        write_state(folder / WEIGHTS, {name: weight.to(torch.float16).contiguous() for name, weight in state.items()})
        write_json(folder / CONFIG, {"model_cfg": self.config})
        write_merges(folder / MERGES)
