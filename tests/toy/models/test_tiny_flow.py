r"""The built-in model as a rectified flow: the conversion is exact, and training on improved the velocity.

A state of the variance-preserving process of the same ratio of noise to signal is :math:`x_\tau = x_\sigma / n`, with
:math:`\sigma = \sigma_\tau / (\alpha_\tau + \sigma_\tau)`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.models import Frozen, FullWeights, LoRA
from rlr.models.export import Merged
from rlr.samplers import DDIM, FlowSDE
from rlr.schedules import Grid
from rlr.toy import packaged
from rlr.toy.data.scenes import draw_images
from rlr.toy.models import Tiny, TinyFlow, tiny_flow
from rlr.toy.pretraining.flow import TRAINED
from rlr.toy.world.prompts import held_out_prompts

ASSETS = Path(tiny_flow.__file__).parents[1] / "assets"
FILE = ASSETS / "tiny_flow" / "unet_changes.safetensors"
PROMPTS = ["a red circle", "two blue squares on a white background"]


@pytest.fixture(scope="module")
def pair() -> tuple[Tiny, TinyFlow]:
    """The built-in model, and the flow that has its weights."""
    return Tiny(trainable=Frozen()), TinyFlow(str(ASSETS / "tiny"), trainable=Frozen())


def noise(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tau", [0, 7, 250, 700, 999])
def test_the_estimate_is_that_of_the_same_ratio_of_noise_to_signal(pair: tuple[Tiny, TinyFlow], tau: int) -> None:
    tiny, flow = pair
    alpha, sigma = tiny.noise_schedule.levels(tau)
    condition, x = tiny.encode(PROMPTS), noise()
    found = flow.denoise(x / (alpha + sigma), sigma / (alpha + sigma), condition)
    torch.testing.assert_close(found, tiny.denoise(x, tau, condition), rtol=0, atol=2e-5)


def test_euler_s_steps_of_the_flow_are_the_steps_of_ddim(pair: tuple[Tiny, TinyFlow]) -> None:
    """On levels of equal ratios both follow one path, up to the scale of the states."""
    tiny, flow = pair
    ddim = Chain(tiny, DDIM(6, 0.0))
    scales = [a + s for a, s in zip(ddim.grid.alphas, ddim.grid.sigmas, strict=True)]
    sigmas = tuple(s / scale for s, scale in zip(ddim.grid.sigmas, scales, strict=True))
    grid = Grid(sigmas, tuple(1 - s for s in sigmas), sigmas)
    condition = tiny.encode(PROMPTS)
    x = noise()
    y = x / scales[6]
    for t in range(6, 0, -1):
        x = ddim.transition(x, t, condition).mean
        y = FlowSDE(6, 0.0).transition(flow.denoise(y, sigmas[t], condition), y, t, grid).mean
        torch.testing.assert_close(y, x / scales[t - 1], rtol=0, atol=1e-4)


class Constant(nn.Module):
    """A network whose output does not depend on its input."""

    def forward(self, x: Tensor, time: Tensor, text: Tensor) -> object:
        return type("Output", (), {"sample": torch.full_like(x, 0.3)})


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.5, 1.0])
def test_velocity_estimate_and_slope_agree(
    random_sd: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, sigma: float
) -> None:
    model = TinyFlow(str(random_sd(prediction="v_prediction")), trainable=Frozen())
    condition, x = model.encode(PROMPTS), noise()
    levels = torch.full((2,), sigma, dtype=torch.float64)
    velocity = model.velocity(model.unet, x, levels, condition.tensors["text"])
    torch.testing.assert_close(x - sigma * velocity, model.denoise(x, sigma, condition))
    monkeypatch.setitem(model._modules, "unet", Constant())
    slope = model.denoise(x + 1, sigma, condition) - model.denoise(x, sigma, condition)
    torch.testing.assert_close(slope, torch.full_like(x, model.skip(sigma)), rtol=0, atol=1e-5)


def test_a_chain_of_it_replays_to_the_bit(random_sd: Callable[..., Path]) -> None:
    chain = Chain(TinyFlow(str(random_sd(prediction="v_prediction")), trainable=LoRA(2), shift=3.0), FlowSDE(4, 0.7))
    assert chain.grid.times[-1] == 1.0
    assert chain.grid.times[2] == pytest.approx(0.75)
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([0, 1]))
    assert trajectory.states.isfinite().all()
    for t in range(4, 0, -1):
        replayed = chain.replay(trajectory, t, t - 1)
        assert torch.equal(replayed.sample(trajectory.noises[t - 1]), trajectory.states[t - 1])


def test_the_package_holds_the_weights_that_training_changed() -> None:
    changes, model, base = load_file(FILE), TinyFlow(trainable=Frozen()), Tiny(trainable=Frozen())
    own, before = model.unet.state_dict(), base.unet.state_dict()
    trained = TinyFlow(str(ASSETS / "tiny"), trainable=FullWeights(TRAINED)).trainable
    assert {f"unet.{name}" for name in changes} == set(trained)
    assert {weight.dtype for weight in changes.values()} == {torch.float16}
    for name, weight in own.items():
        assert torch.equal(weight, changes[name].float() if name in changes else before[name])
    assert any(not torch.equal(own[name], before[name]) for name in changes)
    assert all(torch.equal(w, own[name]) for name, w in model.fresh_network().state_dict().items())
    assert model.source == str(FILE.parent)
    assert FILE.stat().st_size < 6e6


@torch.no_grad()
def loss(model: TinyFlow, captions: list[str]) -> float:
    """The flow loss on held-out scenes, four noise levels of each."""
    generator = torch.Generator().manual_seed(0)
    pixels = draw_images(captions, 0).float() / 255
    clean = model.vae.encode(pixels * 2 - 1).latent_dist.mode() * model.vae.config.scaling_factor
    text, total = model.encode(captions).tensors["text"], 0.0
    for quarter in range(4):
        sigma = (quarter + torch.rand(len(clean), generator=generator, dtype=torch.float64)) / 4
        level, epsilon = sigma.float().view(-1, 1, 1, 1), torch.randn(clean.shape, generator=generator)
        noisy = (1 - level) * clean + level * epsilon
        total += (model.velocity(model.unet, noisy, sigma, text) - (epsilon - clean)).square().mean().item() / 4
    return total


def test_training_on_improved_the_velocity_of_held_out_scenes(pair: tuple[Tiny, TinyFlow]) -> None:
    captions = held_out_prompts(96)
    assert loss(TinyFlow(trainable=Frozen()), captions) < loss(pair[1], captions)


def test_the_aligned_network_is_exported_as_one_of_v_prediction(random_sd: Callable[..., Path], tmp_path: Path) -> None:
    model = TinyFlow(str(random_sd(prediction="v_prediction")), trainable=LoRA(2))
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    Merged().write(model, tmp_path / "out")
    again = TinyFlow(str(tmp_path / "out"), trainable=Frozen())
    condition, x = model.encode(PROMPTS), noise()
    torch.testing.assert_close(again.denoise(x, 0.6, condition), model.denoise(x, 0.6, condition), rtol=0, atol=1e-4)


def test_a_network_of_another_prediction_is_refused(random_sd: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"expected prediction_type v_prediction, found epsilon; at σ = 1"):
        TinyFlow(str(random_sd()))


def test_a_file_of_another_network_is_refused(random_sd: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "changes.safetensors"
    for weights, fault in (
        ({"conv_in.weight": torch.zeros(2, 3)}, "conv_in.weight has another shape"),
        ({"conv_inn.weight": torch.zeros(2, 3)}, "conv_inn.weight is foreign"),
    ):
        save_file(weights, file)
        with pytest.raises(ValueError, match=fault):
            TinyFlow(str(random_sd(prediction="v_prediction")), changes=str(file))


def test_a_missing_built_in_model_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged.resources, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match="built-in flow model is missing from this installation"):
        TinyFlow()
