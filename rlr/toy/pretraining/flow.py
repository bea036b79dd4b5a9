"""Training of the built-in flow model: the built-in denoiser, trained on as a rectified flow."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.evaluation.samples import SampleSet
from rlr.io.weights import write_state
from rlr.models.adapters import FullWeights
from rlr.models.guidance import Guidance
from rlr.models.swapped import swapped
from rlr.samplers import FlowSDE
from rlr.toy.models.tiny_flow import CHANGES, TinyFlow
from rlr.toy.packaged import packaged
from rlr.toy.pretraining.base import Pretraining
from rlr.toy.pretraining.denoiser import encoded_scenes
from rlr.toy.world.caption import parse
from rlr.toy.world.checker import check

TRAINED = "time_emb|attn2|norm|conv_in|conv_out"
"""The weights of a U-Net that read the time and the prompt, scale the features, and read and write latents."""


class FlowDenoiser(Pretraining):
    r"""Trains the velocity :math:`\hat v` of a :class:`~rlr.toy.models.TinyFlow` that starts from a :math:`v`-prediction model.

    Minimizes :math:`\|\hat v(x_\sigma, \sigma, c) - (\epsilon - x_0)\|^2` over
    :math:`x_\sigma = (1 - \sigma) x_0 + \sigma \epsilon` with :math:`\sigma \sim U(0, 1)`. The caption :math:`c` is empty
    with probability ``drop``, which classifier-free guidance needs. The text encoder is frozen.

    References:
        | Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow (Liu et al., 2022)
        | https://arxiv.org/abs/2209.03003
    """

    def __init__(
        self,
        model: str | None = None,
        trained: str = TRAINED,
        lr: float = 3e-4,
        drop: float = 0.1,
        seed: int = 0,
    ) -> None:
        """``model`` is the Stable Diffusion folder to start from; by default the built-in model.

        ``trained`` is a regular expression that is searched in the names of the U-Net's weights.
        """
        path = model or packaged("tiny", "model", "set model to a Stable Diffusion folder")
        flow = TinyFlow(path, trainable=FullWeights(trained))
        super().__init__(nn.ModuleDict({"unet": flow.unet}), lr, seed=seed)
        self.flow, self.drop = flow, drop
        self.save_hyperparameters()

    def on_fit_start(self) -> None:
        """Checks that the data are latents."""
        encoded_scenes(self.trainer)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of the class on a batch of ``mean``, ``std`` and ``captions``."""
        noise = self.noise()
        sampled = torch.randn(batch["mean"].shape, generator=noise, device=self.device)
        clean = (batch["mean"] + batch["std"] * sampled) * self.flow.vae.config.scaling_factor
        epsilon = torch.randn(clean.shape, generator=noise, device=self.device)
        sigma = torch.rand(len(clean), generator=noise, dtype=torch.float64, device=self.device).cpu()
        dropped = torch.rand(len(clean), generator=noise, device=self.device) < self.drop
        captions = ["" if d else c for c, d in zip(batch["captions"], dropped.tolist(), strict=True)]
        level = sigma.to(clean).view(-1, 1, 1, 1)
        noisy = (1 - level) * clean + level * epsilon
        predicted = self.flow.velocity(self.networks["unet"], noisy, sigma, self.flow.encode(captions).tensors["text"])
        loss = (predicted - (epsilon - clean)).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Samples the held-out captions (10 Euler steps, guidance 4) and logs what the exact check says."""
        chain = Chain(Guidance(self.flow, 4.0), FlowSDE(10, noise_level=0.0))
        with swapped(self.flow, {f"unet.{name}": weight for name, weight in self.averaged().items()}):
            (samples,) = SampleSet(batch["captions"], seed=batch_idx, batch_size=len(batch["captions"])).batches(chain)
        checks = check(samples.pixels, [parse(caption) for caption in batch["captions"]])
        self.log_dict(
            {f"val/{claim}": values.nanmean() for claim, values in checks.items()}, batch_size=len(batch["captions"])
        )

    def averaged(self) -> dict[str, Tensor]:
        """The averaged values of the trained weights, by their names in the U-Net."""
        average: Any = self.average["unet"]
        weights = dict(average.named_parameters())
        return {name: weights[name] for name, own in self.flow.unet.named_parameters() if own.requires_grad}

    def export(self, folder: Path) -> None:
        """Writes the averaged weights that were trained, in half precision: the file that ``TinyFlow`` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        half = {name: weight.detach().cpu().half().contiguous() for name, weight in self.averaged().items()}
        write_state(folder / CHANGES, half)
