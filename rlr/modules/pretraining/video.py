"""Pretraining of the built-in world's text-to-video model, in VideoCrafter2's form: denoiser and text tower together."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn

from rlr.models.videocrafter.network import UNetConfig, build_unet, call
from rlr.models.videocrafter.text import TextTower
from rlr.modules.pretraining.base import Pretraining
from rlr.schedules import DiscreteSchedule
from rlr.world.tokenizer import LENGTH, open_clip_tokenizer

SCALE = 0.7
"""To what the dynamic rescale of VideoCrafter2 brings latents down, over the first 400 of 1000 times."""
FPS = 8


def config() -> UNetConfig:
    """The denoiser's size: 3.0 M weights."""
    return UNetConfig(48, (1, 2), 1, (1,), num_head_channels=12, context_dim=64, norm_groups=16)


def text_tower(vocabulary: int) -> TextTower:
    """The text tower's size: 0.2 M weights, three blocks of which the last is unused."""
    return TextTower(vocabulary, width=64, heads=4, layers=3, length=LENGTH, mlp_ratio=3.0)


def zeroed(unet: UNet3DConditionModel) -> UNet3DConditionModel:
    """The denoiser with every temporal layer the identity, as VideoCrafter begins from a text-to-image model."""
    for module in temporal(unet):
        last = module.proj_out if isinstance(module, TransformerTemporalModel) else module.conv4[-1]
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return unet


def temporal(unet: UNet3DConditionModel) -> list[Any]:
    """The layers that join frames."""
    return [module for module in unet.modules() if isinstance(module, TransformerTemporalModel | TemporalConvLayer)]


@contextmanager
def still(unet: UNet3DConditionModel) -> Iterator[None]:
    """A context in which temporal layers are the identity, neither computed nor trained."""
    with ExitStack() as stack:
        for module in temporal(unet):
            wrap = (lambda x: (x,)) if isinstance(module, TransformerTemporalModel) else (lambda x: x)
            stack.enter_context(patch.object(module, "forward", lambda x, *_, wrap=wrap, **__: wrap(x)))
        yield


class VideoDenoiser(Pretraining):
    r"""Predicts the velocity :math:`v = \sqrt{\bar\alpha_t}\,\epsilon - \sqrt{1-\bar\alpha_t}\,s_t z` of rescaled latents.

    Minimises :math:`w_t \,\|\hat v(x_t, t, c) - v\|^2` at :math:`x_t = \sqrt{\bar\alpha_t}\,s_t z +
    \sqrt{1-\bar\alpha_t}\,\epsilon` with VideoCrafter2's rescale :math:`s_t` and min-SNR weights (Hang et al. 2023)
    :math:`w_t = \min(\mathrm{SNR}_t, \gamma) / (\mathrm{SNR}_t + 1)`. The caption :math:`c` is empty with probability
    ``drop``, which classifier-free guidance needs. Rows of one frame train the spatial layers alone: first those, on
    many pictures, then the whole on clips, as VideoCrafter is inflated from a text-to-image model.
    """

    abar: Tensor
    rescale: Tensor

    def __init__(
        self,
        autoencoder: str,
        start: str | None = None,
        lr: float = 1e-3,
        gamma: float = 5.0,
        drop: float = 0.1,
        seed: int = 0,
    ) -> None:
        """``autoencoder`` is the folder whose latents are denoised; ``start`` a checkpoint of stills to inflate."""
        tokenizer = open_clip_tokenizer()
        networks: dict[str, Any] = {"unet": zeroed(build_unet(config())), "text": text_tower(tokenizer.vocab_size)}
        super().__init__(nn.ModuleDict(networks), lr, seed=seed)
        self.tokenizer, self.gamma, self.drop = tokenizer, gamma, drop
        self.scale = AutoencoderKL.load_config(autoencoder)["scaling_factor"]
        self.register_buffer("abar", DiscreteSchedule.scaled_linear(), persistent=False)
        ramp = torch.cat([torch.linspace(1, SCALE, 400), torch.full((600,), SCALE)])
        self.register_buffer("rescale", ramp, persistent=False)
        if start:
            self._inflate(start)
        self.save_hyperparameters()

    def _inflate(self, start: str) -> None:
        state = torch.load(start, map_location="cpu", weights_only=False)["state_dict"]
        averaged = {name.removeprefix("average."): w for name, w in state.items() if name.startswith("average.")}
        self.networks.load_state_dict(averaged)
        self.average.load_state_dict(averaged)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of the class on a batch of ``mean``, ``std`` and ``captions``."""
        generator = self.noise()
        mean, std = (batch[name].float().transpose(1, 2) for name in ("mean", "std"))
        clean = (mean + std * torch.randn(mean.shape, generator=generator)) * self.scale
        epsilon = torch.randn(mean.shape, generator=generator)
        times = torch.randint(len(self.abar), (len(clean),), generator=generator)
        dropped = torch.rand(len(clean), generator=generator) < self.drop
        captions = ["" if d else c for c, d in zip(batch["captions"], dropped.tolist(), strict=True)]
        signal, noise = self.abar[times].sqrt(), (1 - self.abar[times]).sqrt()
        scaled = clean * per_row(self.rescale[times])
        noisy = per_row(signal) * scaled + per_row(noise) * epsilon
        velocity = per_row(signal) * epsilon - per_row(noise) * scaled
        predicted = self.predict(self.networks, noisy, times, captions)
        loss = ((predicted - velocity).square().mean((1, 2, 3, 4)) * self.weight(times)).mean()
        self.log("train/loss", loss)
        return loss

    def predict(self, networks: Any, x: Tensor, times: Tensor, captions: Sequence[str]) -> Tensor:
        """The velocity that networks predict of noisy latents (B, 4, F, 8, 8)."""
        text = networks["text"](self.tokenizer(list(captions)).to(x.device))
        fps = torch.full((len(x),), FPS, device=x.device)
        with still(networks["unet"]) if x.shape[2] == 1 else ExitStack():
            return call(networks["unet"], x, times, text, fps)

    def weight(self, times: Tensor) -> Tensor:
        """The weight of each time in the loss, (B,)."""
        snr = self.abar[times] * self.rescale[times] ** 2 / (1 - self.abar[times])
        return snr.clamp(max=self.gamma) / (snr + 1)


def per_row(values: Tensor) -> Tensor:
    """Numbers (B,) with axes to multiply latents (B, C, F, h, w)."""
    return values[:, None, None, None, None]
