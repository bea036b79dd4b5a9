"""Families of base models that are built without weights, against the same ones with weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.footprint.total import Footprint
from rlr.analysis.footprint.training import Training
from rlr.estimators import RLR
from rlr.io.inventory import without_weights
from rlr.models import (
    CogVideoX,
    Flux,
    Flux2,
    HunyuanVideo15,
    LTXVideo,
    QwenImage,
    StableDiffusion,
    StableDiffusion3,
    StableDiffusionXL,
    VideoCrafter,
    Wan,
    ZImage,
)
from rlr.models.base import DiffusionModel
from rlr.modules import ImageAlignment, VideoAlignment
from rlr.modules.alignment import Alignment
from rlr.rewards import Brightness, FrameReward
from rlr.samplers import DDIM, FlowSDE
from tests.analysis.footprint.test_passes import Real
from tests.models.families import IMAGES, TOKENS, VIDEOS


@dataclass(frozen=True)
class Family:
    """A family, the fixture with its random files, and the classes of its alignment."""

    files: str
    model: Callable[..., DiffusionModel]
    video: bool = False
    flow: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    def path(self, request: pytest.FixtureRequest) -> str:
        found: Any = request.getfixturevalue(self.files)
        return str(found if isinstance(found, Path) else found())

    def align(self, path: str) -> Alignment:
        sampler = FlowSDE(4) if self.flow else DDIM(4)
        reward = FrameReward(Brightness()) if self.video else Brightness()
        return (VideoAlignment if self.video else ImageAlignment)(
            self.model(path, **self.options), sampler, reward, RLR(1)
        )


IMAGE, VIDEO = ({"tokens": TOKENS, **sizes[0]} for sizes in (IMAGES, VIDEOS))
# the default of these models is the size of the published weights
SMALL = {"size": 32}

FAMILIES = {
    "StableDiffusion": Family("random_sd", StableDiffusion),
    "StableDiffusion3": Family("random_sd3", StableDiffusion3, flow=True, options=SMALL),
    "StableDiffusionXL": Family("random_sdxl", StableDiffusionXL, options=SMALL),
    "Flux": Family("random_flux", Flux, flow=True, options=SMALL),
    "Flux2": Family("random_flux2", Flux2, flow=True, options=SMALL),
    "VideoCrafter": Family("random_vc", VideoCrafter, video=True),
    "QwenImage": Family("random_qwenimage", QwenImage, flow=True, options=IMAGE),
    "ZImage": Family("random_zimage", ZImage, flow=True, options=IMAGE),
    "Wan": Family("random_wan", Wan, video=True, flow=True, options=VIDEO),
    "CogVideoX": Family("random_cogvideox", CogVideoX, video=True, options=VIDEOS[0]),
    "LTXVideo": Family("random_ltx", LTXVideo, video=True, flow=True, options=VIDEO | {"size": (32, 32)}),
    "HunyuanVideo15": Family("random_hunyuan15", HunyuanVideo15, video=True, flow=True, options=VIDEOS[0]),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_without_weights_takes_what_the_real_one_takes(name, request):
    family = FAMILIES[name]
    path = family.path(request)
    with without_weights() as inventory:
        module = family.align(path)
        assert all(weight.is_meta for weight in module.chain.model.parameters() if not weight.requires_grad)
        found = Footprint(module, 2)
    assert inventory.sources
    assert not inventory.missing

    real = family.align(path)
    model, reward = real.chain.model, real.reward
    training = Training(model, reward, real.chain.sampler, 2, Real())
    assert found.weights["trained weights"] == sum(4 * w.numel() for w in real.weights)
    assert sum(found.weights.values()) == sum(
        t.numel() * t.element_size() for part in (model, reward) for t in (*part.parameters(), *part.buffers())
    )
    assert found.training.denoiser.kept == training.denoiser.kept
    assert found.peak().device > found.frozen


def test_a_cast_of_the_trainer_halves_frozen_weights_alone(random_sd):
    with without_weights():
        whole, half = (
            Footprint(FAMILIES["StableDiffusion"].align(str(random_sd())), 1, precision)
            for precision in (None, "bf16-true")
        )
    assert half.weights["unet, frozen"] == whole.weights["unet, frozen"] / 2
    assert half.weights["trained weights"] == whole.weights["trained weights"]


def test_an_average_is_a_further_copy(random_sd):
    with without_weights():
        modules = [FAMILIES["StableDiffusion"].align(str(random_sd())) for _ in range(2)]
        plain, averaged = (Footprint(m, 1, averaged=a) for m, a in zip(modules, (False, True), strict=True))
    assert averaged.frozen - plain.frozen == plain.weights["trained weights"]


def test_fake_tensors_take_no_memory():
    fake = Fake()
    with fake.active():
        assert torch.empty(2**40).numel() == 2**40
