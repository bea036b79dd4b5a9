r"""The built-in model as a rectified flow: :math:`x_\sigma = (1 - \sigma) x_0 + \sigma \epsilon`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rlr.io.weights import compare, map_state
from rlr.models.adapters import Trainable
from rlr.models.base import Condition, Size
from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.prediction import flow, velocity
from rlr.schedules import RectifiedFlow, Schedule
from rlr.toy.models.tiny import Tiny
from rlr.toy.packaged import packaged

CHANGES = "unet_changes.safetensors"
"""The file of the package with the weights of the U-Net in which the flow differs from the built-in model."""


@dataclass(frozen=True)
class ChangedFolder(ModelFolder):
    """A folder some of whose weights are replaced.

    Args:
        changes: The safetensors file of the weights that take the place of those of a part, by the name of the part.
    """

    changes: Mapping[str, Path] = field(default_factory=dict)

    def network(self, kind: Any, part: str, **dtype: torch.dtype) -> Any:
        network = super().network(kind, part, **dtype)
        if file := self.changes.get(part):
            state, own = map_state(file), network.state_dict()
            compare({name: own[name] for name in state if name in own}, state, file, type(network).__name__)
            network.load_state_dict({**own, **state})
        return network


class TinyFlow(Tiny):
    r"""The built-in model as a rectified flow: images of 32 x 32 pixels, latents of shape (4, 8, 8).

    Its U-Net is one of :math:`v`-prediction, which reads a state at the time :math:`\tau(\sigma)` of the equal ratio of noise to
    signal, scaled to that time's levels. With :math:`n = \sqrt{(1 - \sigma)^2 + \sigma^2}` and the network's output :math:`F`,

    .. math:: \hat v = \frac{(2 \sigma - 1) \, x_\sigma + n \, F(x_\sigma / n, \tau(\sigma))}{n^2},
        \qquad \hat x_0 = x_\sigma - \sigma \hat v

    This is exact for an exact network, so that any Stable Diffusion of :math:`v`-prediction is a flow, too. The built-in model's
    was then trained on as a flow, see :class:`~rlr.toy.pretraining.flow.FlowDenoiser`; the weights that changed are in the
    package beside those of :class:`Tiny`. The aligned U-Net is still one of :math:`v`-prediction, and is exported as one.

    Args:
        path: A Stable Diffusion folder of :math:`v`-prediction to take the place of the built-in one.
        changes: A file of weights that replace some of the U-Net's; by default those of the package, and none with ``path``.
        shift: The time shift of the grid, see :class:`~rlr.schedules.RectifiedFlow`.
        options: As in :class:`~rlr.models.StableDiffusion`.

    Raises:
        ValueError: If the folder's network predicts something else, or the file does not fit the network.
    """

    def __init__(self, path: str | None = None, changes: str | None = None, shift: float = 1.0, **options: Any) -> None:
        if path is None and changes is None:
            changes = str(Path(packaged("tiny_flow", "flow model", "set path to a Stable Diffusion folder")) / CHANGES)
        self.changes = changes
        self.flow = RectifiedFlow(shift)
        super().__init__(path, **options)

    def _build(
        self, folder: ModelFolder, trainable: Trainable | None, number: torch.dtype, text: TextPlacement | None
    ) -> None:
        if self.changes:
            changes = {"unet": Path(self.changes)}
            folder = ChangedFolder(folder.path, folder.kind, folder.parts, folder.revision, folder.variant, changes)
        super()._build(folder, trainable, number, text)
        if self.prediction is not velocity:
            raise ValueError(
                f"{folder.path}/scheduler/scheduler_config.json: expected prediction_type v_prediction, found "
                f"{self.scheduler.get('prediction_type')}; at σ = 1 a flow has no signal, of which only v says anything"
            )

    @property
    def source(self) -> str:
        return str(Path(self.changes).parent) if self.changes else super().source

    def schedule(self, size: Size) -> Schedule:
        return self.flow

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        text = condition.tensors["text"].to(self.dtype)
        sigma = torch.full((len(x),), time, dtype=torch.float64)
        return flow(self.velocity(self.unet, x, sigma, text), x, 1 - time, time)

    def velocity(self, network: Any, x: Tensor, sigma: Tensor, text: Tensor) -> Tensor:
        r"""Returns :math:`\hat v` of a U-Net in place of the model's own.

        Args:
            network: The U-Net.
            x: The states :math:`x_\sigma`, with shape :math:`(B, 4, 8, 8)`.
            sigma: The noise levels :math:`\sigma \in [0, 1]` in float64 on the CPU, with shape :math:`(B)`.
            text: The embeddings of the prompts, with shape :math:`(B, 24, 128)`.
        """
        tau = self.noise_schedule.time_at(1 - sigma, sigma).to(x.device)
        sigma = sigma.view(-1, *[1] * (x.ndim - 1)).to(x.device, x.dtype)
        n = ((1 - sigma) ** 2 + sigma**2).sqrt()
        output = network((x / n).to(text.dtype), tau, text).sample.to(x.dtype)
        return ((2 * sigma - 1) * x + n * output) / n**2

    def skip(self, time: float) -> float:
        return (1 - time) / ((1 - time) ** 2 + time**2)
