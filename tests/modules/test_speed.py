"""Networks that are compiled, or whose weights are stored channels last."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlr.data import Prompts
from rlr.estimators import AlignProp, DirectionPerSample, Estimator, HalfOrder, SharedDirection, ZerothOrder
from rlr.models import LoRA, StableDiffusion
from rlr.models.base import Condition
from rlr.models.export import DiffusersLoRA
from rlr.models.uncompiled import uncompiled
from rlr.modules.sharded import Sharded
from rlr.modules.speed import Compile, Speed
from rlr.rewards import Brightness
from rlr.samplers import DDIM
from rlr.toy.models import Tiny
from tests.modules.toy import WORDS, AffineModel, Level, align, prompts, run, weights

Folder = Callable[..., Path]
TRACED = Speed(Compile("eager"))
"""What ``torch.compile`` makes of a network without compiling kernels: the same passes, found once."""


class Networked(AffineModel):
    """The toy with a network of two layers, which are trained."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(trained=False)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.unet = nn.Sequential(*(layers or (nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 12)))).double()

    def networks(self) -> Mapping[str, nn.Module]:
        return {"unet": self.unet}

    def denoise(self, x: Tensor, time: float, condition: Condition) -> Tensor:
        shaped = x if isinstance(self.unet[0], nn.Conv2d) else x.flatten(1)
        return torch.tanh(self.unet(shaped.double()).view_as(x) + condition.tensors["c"].view(-1, 1, 1, 1)).to(x.dtype)


def train(estimator: Estimator, speed: Speed) -> Tensor:
    torch.compiler.reset()
    one = align(model=Networked(), estimator=estimator, reward=Level(), speed=speed)
    run(one, prompts(), 3, precision="64-true")
    return weights(one)


CASES: dict[str, Callable[[], Estimator]] = {
    "backpropagation": AlignProp,
    "half order": lambda: HalfOrder(2),
    "zeroth order, a direction for each sample": lambda: ZerothOrder(perturbation=DirectionPerSample()),
    "zeroth order, one direction": lambda: ZerothOrder(perturbation=SharedDirection()),
}


@pytest.mark.parametrize("name", CASES)
def test_a_traced_network_trains_as_it_is(name: str) -> None:
    torch.testing.assert_close(train(CASES[name](), TRACED), train(CASES[name](), Speed()), atol=1e-10, rtol=0)


def test_compiled_code_does_not_see_hooks_unless_it_is_left_out() -> None:
    """The law above can fail: it is what the context of a perturbation is for."""
    model = Networked()
    torch.compiler.reset()
    TRACED.apply(model)
    x = torch.ones(2, 12, dtype=torch.float64)
    plain = model.unet(x)
    with model.unet[0].register_forward_hook(lambda *_: torch.zeros(2, 16, dtype=torch.float64)):  # type: ignore[attr-defined]
        assert torch.equal(model.unet(x), plain)
        with uncompiled(model):
            assert not torch.equal(model.unet(x), plain)
    assert torch.equal(model.unet(x), plain)


def test_names_of_weights_stay() -> None:
    one, other = Networked(), Networked()
    Speed(Compile("eager"), channels_last=True).apply(one)
    assert one.unet._compiled_call_impl is not None
    assert list(one.state_dict()) == list(other.state_dict())
    assert list(one.trainable) == list(other.trainable)
    code = one.unet._compiled_call_impl
    TRACED.apply(one)
    assert one.unet._compiled_call_impl is code  # a second command does not compile again


def test_channels_last_changes_the_layout_alone() -> None:
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 3, 3, padding=1)
    model = Networked(*layers)
    x = torch.rand(2, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before, values = model.unet(x), [weight.detach().clone() for weight in model.unet.parameters()]
    Speed(channels_last=True).apply(model)
    assert layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(weight, value) for weight, value in zip(model.unet.parameters(), values, strict=True))
    torch.testing.assert_close(model.unet(x), before)


def test_what_cannot_be_prepared_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a model of denoising networks, got AffineModel"):
        run(align(speed=TRACED), prompts(), 1)
    with pytest.raises(ValueError, match="the strategy sharded splits them"):
        TRACED.apply(Networked(), Sharded())
    Speed().apply(AffineModel(), Sharded())


def test_attention_of_diffusers_is_torchs_own() -> None:
    """So there is no option for it: ``AttnProcessor2_0`` calls ``scaled_dot_product_attention``."""
    (unet,) = Tiny().networks().values()
    assert {type(processor).__name__ for processor in unet.attn_processors.values()} == {"AttnProcessor2_0"}  # type: ignore[union-attr, operator]


@pytest.mark.slow
def test_a_traced_unet_with_a_lora_trains_saves_and_exports(random_sd: Folder, tmp_path: Path) -> None:
    """With replays, a base model for the divergence, guidance off and on, and files under the same names."""
    folder, found = random_sd(), {}
    for name, speed in (("plain", Speed()), ("traced", TRACED)):
        torch.compiler.reset()
        model = StableDiffusion(str(folder), LoRA(2), dtype="float64")
        settings: dict[str, Any] = {"reward": Brightness(), "sampler": DDIM(2, eta=1.0), "checkpoint_steps": True}
        one = align(model=model, estimator=HalfOrder(1), log_kl_every=1, speed=speed, **settings)
        trainer = run(one, Prompts([WORDS[0]], batch_size=2), 2, precision="64-true")
        trainer.save_checkpoint(tmp_path / f"{name}.ckpt")
        DiffusersLoRA().write(model, tmp_path / name)
        names = sorted(torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["state_dict"])
        files = sorted(path.name for path in (tmp_path / name).iterdir())
        found[name] = (weights(one), trainer.callback_metrics["kl/path"], names, files)
    plain, traced = found["plain"], found["traced"]
    torch.testing.assert_close(traced[0], plain[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(traced[1], plain[1], rtol=1e-5, atol=0)
    assert plain[1] > 0
    assert traced[2:] == plain[2:]
