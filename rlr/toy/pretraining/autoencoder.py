"""Pretraining of the built-in world's autoencoder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from rlr.toy.pretraining.base import Pretraining
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check


class Autoencoder(Pretraining):
    r"""A variational autoencoder with reconstruction :math:`r` of pixels :math:`x` in [-1, 1].

    Minimizes :math:`|r - x| + 2 (r - x)^2 + \beta\, \mathrm{KL}(q(z|x) \,\|\, N(0, I))`, each a mean over entries.
    Latents are (4, 8, 8) for 32 pixels: every latent pixel stands for 4 x 4 pixels.
    """

    def __init__(
        self,
        channels: tuple[int, int, int] = (16, 32, 64),
        lr: float = 2.5e-3,
        warmup: int = 100,
        kl: float = 1e-4,
        seed: int = 0,
    ) -> None:
        network: Any = AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * len(channels),
            up_block_types=("UpDecoderBlock2D",) * len(channels),
            layers_per_block=1,
            norm_num_groups=8,
            sample_size=32,
            mid_block_add_attention=False,
        )
        super().__init__(nn.ModuleDict({"vae": network}), lr, warmup, weight_decay=0.0, seed=seed)
        self.kl = kl
        self.save_hyperparameters()

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of the class on a batch of ``pixels`` in [0, 1]."""
        pixels = batch["pixels"] * 2 - 1
        vae: Any = self.networks["vae"]
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=self.noise(), device=self.device)
        latents = posterior.mean + posterior.std * noise.to(posterior.mean.dtype)
        error = vae.decode(latents).sample.float() - pixels
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var.float() - 1 - posterior.logvar.float()).mean()
        self.log_dict({"train/mse": error.square().mean(), "train/kl": kl})
        return error.abs().mean() + 2 * error.square().mean() + self.kl * kl

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs the error of the averaged network and what the exact check says of its reconstructions."""
        vae: Any = self.average["vae"]
        decoded = vae.decode(vae.encode(batch["pixels"] * 2 - 1).latent_dist.mode()).sample
        error = decoded.float() / 2 + 0.5 - batch["pixels"]
        self.log("val/psnr", -10 * error.square().mean().log10(), batch_size=len(error))
        checks = check((decoded.float() / 2 + 0.5).clamp(0, 1), [parse(c) for c in batch["captions"]])
        for name in ("count", "color", "shape", "all"):
            self.log(f"val/{name}", checks[name].mean(), batch_size=len(error))

    def export(self, folder: Path) -> None:
        """Writes the averaged network in half precision, in the layout of diffusers."""
        vae: Any = self.average["vae"]
        vae.to(torch.float16).save_pretrained(folder)
