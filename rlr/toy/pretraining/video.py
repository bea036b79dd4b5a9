"""Pretraining of the built-in world's text-to-video model, in VideoCrafter2's form: denoiser and text tower together."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from diffusers import AutoencoderKL, UNet3DConditionModel
from diffusers.models.resnet import TemporalConvLayer
from diffusers.models.transformers.transformer_temporal import TransformerTemporalModel
from torch import Tensor, nn

from rlr.io.weights import compare, map_state
from rlr.models.videocrafter.architecture import Architecture, TextConfig, VAEConfig
from rlr.models.videocrafter.buffers import write_buffers
from rlr.models.videocrafter.checkpoint import export_official
from rlr.models.videocrafter.model import MERGES
from rlr.models.videocrafter.network import UNetConfig, call
from rlr.toy.data.scenes import Table
from rlr.toy.data.videos import Batch
from rlr.toy.pretraining.base import Pretraining
from rlr.toy.world.render import SIDE
from rlr.toy.world.tokenizer import LENGTH, open_clip_tokenizer, write_merges
from rlr.toy.world.videos import FRAMES

FPS = 8


def architecture(vocabulary: int, scale_factor: float) -> Architecture:
    """The sizes: a denoiser of 3.0 M weights, a text tower of 0.2 M (its last block unused), the tiny autoencoder."""
    return Architecture(
        unet=UNetConfig(48, (1, 2), 1, (1,), num_head_channels=12, context_dim=64, norm_groups=16),
        vae=VAEConfig(16, (1, 2, 4), num_res_blocks=1, norm_groups=8, mid_attention=False),
        text=TextConfig(vocabulary, width=64, heads=4, layers=3, length=LENGTH, mlp_ratio=3.0),
        scale_factor=scale_factor,
        fix_scale_bug=True,
        parameterization="v",
        spacing="trailing",
        size=(SIDE, SIDE),
        frames=FRAMES,
        fps=FPS,
        playback=FPS,
    )


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

    Minimizes :math:`w_t \,\|\hat v(x_t, t, c) - v\|^2` at :math:`x_t = \sqrt{\bar\alpha_t}\,s_t z +
    \sqrt{1-\bar\alpha_t}\,\epsilon` with VideoCrafter2's rescale :math:`s_t` and weights :math:`w_t = \min(\mathrm{SNR}_t + 1,
    \gamma) / (\mathrm{SNR}_t + 1)`: min-SNR weights (Hang et al. 2023) next to ignore high noise, at which it is decided where
    things move to. The caption :math:`c` is empty with probability ``drop``, which classifier-free guidance needs. Rows of one
    frame train the spatial layers alone: first those, then the whole on videos, with such rows beside, as VideoCrafter is
    inflated from a text-to-image model.

    The order matters. Where a thing is depends on direction, time and place together, and on no two of them: over all places,
    or all times, the mean is the same for every direction. Gradient descent finds no way into such a product, and videos alone
    taught no direction at all in 2,500 steps. In *first* frames place depends on direction alone, which a few hundred steps teach;
    after that, videos teach time in some dozens.
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
        self.scale = AutoencoderKL.load_config(autoencoder)["scaling_factor"]
        self.architecture = architecture(tokenizer.vocab_size, self.scale)
        unet, text = zeroed(self.architecture.build_unet()), self.architecture.build_text()
        super().__init__(nn.ModuleDict({"unet": unet, "text": text}), lr, seed=seed)
        self.tokenizer, self.gamma, self.drop, self.autoencoder = tokenizer, gamma, drop, autoencoder
        tables = write_buffers(self.architecture)
        self.register_buffer("abar", tables["alphas_cumprod"], persistent=False)
        self.register_buffer("rescale", tables["scale_arr"], persistent=False)
        if start:
            self._inflate(start)
        self.save_hyperparameters()

    def _inflate(self, start: str) -> None:
        source = Path(start)
        state = map_state(source)
        averaged = {name.removeprefix("average."): w for name, w in state.items() if name.startswith("average.")}
        remedy = "set start to a checkpoint of the pretraining on stills"
        compare(self.networks.state_dict(), averaged, source, "the networks of VideoDenoiser", remedy)
        self.networks.load_state_dict(averaged)
        self.average.load_state_dict(averaged)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The losses of the class on videos and on stills, whichever the batch has, added."""
        generator = self.noise()
        losses = {name: self.loss(self.networks, rows, generator) for name, rows in batch.items()}
        self.log_dict({f"train/{name}": loss for name, loss in losses.items()})
        return torch.stack(list(losses.values())).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The loss of the average on held-out videos, at times and noises that are the same every time."""
        generator = torch.Generator().manual_seed(batch_idx)
        for name, rows in batch.items():
            self.log(f"validation/{name}", self.loss(self.average, rows, generator), batch_size=len(rows["captions"]))

    def loss(self, networks: Any, rows: Table, generator: torch.Generator) -> Tensor:
        """The loss of the class on ``mean`` and ``std`` (B, F, 4, 8, 8) and ``captions``."""
        mean, std = (torch.as_tensor(rows[name]).float().transpose(1, 2) for name in ("mean", "std"))
        clean = (mean + std * torch.randn(mean.shape, generator=generator)) * self.scale
        epsilon = torch.randn(mean.shape, generator=generator)
        times = self.times(len(clean), clean.shape[2], generator)
        dropped = torch.rand(len(clean), generator=generator) < self.drop
        captions = ["" if d else c for c, d in zip(rows["captions"], dropped.tolist(), strict=True)]
        signal, noise = self.abar[times].sqrt(), (1 - self.abar[times]).sqrt()
        scaled = clean * per_row(self.rescale[times])
        noisy = per_row(signal) * scaled + per_row(noise) * epsilon
        velocity = per_row(signal) * epsilon - per_row(noise) * scaled
        predicted = self.predict(networks, noisy, times, captions)
        return ((predicted - velocity).square().mean((1, 2, 3, 4)) * self.weight(times)).mean()

    def times(self, count: int, frames: int, generator: torch.Generator) -> Tensor:
        r"""Random times of videos of ``frames`` :math:`F` frames, later ones more often.

        A uniform share :math:`u` of the schedule becomes :math:`s u / (1 + (s-1) u)` with :math:`s = \sqrt F`: frames that show
        the same tell it at more noise than one does (Esser et al. 2024, Equation 23, with pixels for frames).
        """
        u, s = torch.rand(count, generator=generator), frames**0.5
        return (len(self.abar) * s * u / (1 + (s - 1) * u)).long().clamp(max=len(self.abar) - 1)

    def predict(self, networks: Any, x: Tensor, times: Tensor, captions: Sequence[str]) -> Tensor:
        """The velocity that networks predict of noisy latents (B, 4, F, 8, 8)."""
        text = networks["text"](self.tokenizer(list(captions)).to(x.device))
        fps = torch.full((len(x),), FPS, device=x.device)
        with still(networks["unet"]) if x.shape[2] == 1 else ExitStack():
            return call(networks["unet"], x, times, text, fps)

    def weight(self, times: Tensor) -> Tensor:
        """The weight of each time in the loss, (B,)."""
        snr = self.abar[times] * self.rescale[times] ** 2 / (1 - self.abar[times])
        return (snr + 1).clamp(max=self.gamma) / (snr + 1)

    def export(self, folder: Path) -> None:
        """Writes the averaged model in half precision, in VideoCrafter's layout, with sizes and merges beside."""
        vae = AutoencoderKL.from_pretrained(self.autoencoder, torch_dtype=torch.float32)
        export_official(folder, self.average["unet"], vae, self.average["text"], self.architecture)
        write_merges(folder / MERGES)


def per_row(values: Tensor) -> Tensor:
    """Numbers (B,) with axes to multiply latents (B, C, F, h, w)."""
    return values[:, None, None, None, None]
