"""Pretraining of the built-in world's text-to-image model: denoiser and text encoder together."""

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DDPMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rlr.toy.data.scenes import EncodedScenes
from rlr.toy.pretraining.base import Pretraining
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check
from rlr.toy.world.tokenizer import LENGTH, build_tokenizer

DIFFUSION: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "clip_sample": False,
}


def build_unet(channels: tuple[int, ...], width: int) -> UNet2DConditionModel:
    """A denoiser of latents (4, 8, 8) with cross-attention to text of the given ``width`` at every level."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=channels,
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * len(channels),
        up_block_types=("CrossAttnUpBlock2D",) * len(channels),
        cross_attention_dim=width,
        # in diffusers this is the number of heads
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    """A CLIP text encoder of two layers."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=3 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=LENGTH,
            projection_dim=width,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


class Denoiser(Pretraining):
    r"""Predicts the velocity :math:`v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,z`.

    Minimizes :math:`w_t \,\|\hat v(z_t, t, c) - v\|^2` with
    :math:`w_t = \min(\mathrm{SNR}_t, \gamma) / (\mathrm{SNR}_t + 1)` (min-SNR weighting, Hang et al. 2023, for
    v-prediction, Salimans and Ho 2022). The caption :math:`c` is empty with probability ``drop``, which
    classifier-free guidance needs.
    """

    scale: Tensor

    def __init__(
        self,
        autoencoder: str,
        channels: tuple[int, ...] = (64, 128),
        width: int = 128,
        lr: float = 1e-3,
        gamma: float = 5.0,
        drop: float = 0.1,
        seed: int = 0,
    ) -> None:
        """``autoencoder`` is the folder whose latents are denoised; the data module must encode with the same."""
        tokenizer = build_tokenizer()
        networks: dict[str, Any] = {
            "unet": build_unet(channels, width),
            "text_encoder": build_text_encoder(tokenizer, width),
        }
        super().__init__(nn.ModuleDict(networks), lr, seed=seed)
        self.tokenizer, self.autoencoder, self.gamma, self.drop = tokenizer, autoencoder, gamma, drop
        self.diffusion: Any = DDPMScheduler(**DIFFUSION)
        self.register_buffer("scale", torch.tensor(1.0))
        self.save_hyperparameters()

    def on_fit_start(self) -> None:
        """Latents are divided by their spread over the training scenes."""
        self.scale.fill_(1 / encoded_scenes(self.trainer).spread)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of the class on a batch of ``mean``, ``std`` and ``captions``."""
        noise = self.noise()
        sampled = torch.randn(batch["mean"].shape, generator=noise, device=self.device)
        latents = (batch["mean"] + batch["std"] * sampled) * self.scale
        epsilon = torch.randn(latents.shape, generator=noise, device=self.device)
        times = torch.randint(self.diffusion.config.num_train_timesteps, (len(latents),), generator=noise)
        dropped = torch.rand(len(latents), generator=noise) < self.drop
        ids = self.tokens(["" if d else c for c, d in zip(batch["captions"], dropped.tolist(), strict=True)])
        text = self.networks["text_encoder"](input_ids=ids)[0]
        noisy = self.diffusion.add_noise(latents, epsilon, times)
        velocity = self.diffusion.get_velocity(latents, epsilon, times)
        predicted = self.networks["unet"](noisy, times, text).sample
        loss = ((predicted - velocity).square().mean((1, 2, 3)) * self.weight(times)).mean()
        self.log("train/loss", loss)
        return loss

    def weight(self, times: Tensor) -> Tensor:
        """The weight of each time in the loss, (B,)."""
        alpha = self.diffusion.alphas_cumprod[times]
        snr = alpha / (1 - alpha)
        return (snr.clamp(max=self.gamma) / (snr + 1)).to(self.device)

    def tokens(self, captions: list[str]) -> Tensor:
        """Token numbers, (B, 24)."""
        encoded = self.tokenizer(
            captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        )
        return encoded.input_ids.to(self.device)

    def pipeline(self) -> Any:
        """The averaged networks with everything that sampling needs."""
        vae = AutoencoderKL.from_pretrained(self.autoencoder).to(self.device)
        # the folder it came from is a path of this machine and none of the model's business
        vae.register_to_config(scaling_factor=float(self.scale), _name_or_path="")
        pipeline: Any = StableDiffusionPipeline(
            vae=vae,
            text_encoder=self.average["text_encoder"],
            tokenizer=self.tokenizer,
            unet=self.average["unet"],
            scheduler=DDIMScheduler(**DIFFUSION, set_alpha_to_one=False, steps_offset=1, timestep_spacing="trailing"),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Samples the held-out captions (20 DDIM steps, guidance 4) and logs what the exact check says."""
        noise = torch.Generator().manual_seed(batch_idx)
        pipeline = self.pipeline()
        pixels = pipeline(
            batch["captions"], num_inference_steps=20, guidance_scale=4.0, generator=noise, output_type="pt"
        ).images
        checks = check(pixels, [parse(caption) for caption in batch["captions"]])
        self.log_dict({f"val/{claim}": values.nanmean() for claim, values in checks.items()}, batch_size=len(pixels))

    def export(self, folder: Path) -> None:
        """Writes the averaged model in half precision, in the layout of diffusers."""
        self.pipeline().to(torch.float16).save_pretrained(folder)


def encoded_scenes(trainer: Any) -> EncodedScenes:
    """Returns the data module of a trainer.

    Raises:
        ValueError: If its data are no latents.
    """
    data = trainer.datamodule
    if not isinstance(data, EncodedScenes):
        raise ValueError(
            f"The denoiser trains on latents but the data is {type(data).__name__}: use rlr.toy.data.scenes.EncodedScenes."
        )
    return data
