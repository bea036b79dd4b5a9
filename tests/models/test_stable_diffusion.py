from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rlr.chain import Chain
from rlr.models import Frozen, Guidance, LoRA, StableDiffusion
from rlr.models.base import DiffusionModel
from rlr.models.prediction import clean, noise, velocity
from rlr.samplers import DDIM

Folder = Callable[..., Path]
PROMPTS = ["a red circle", "two blue squares"]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_every_prediction_gives_back_the_clean_latent() -> None:
    x0, epsilon = draw(2, 3, 4)
    for alpha in (0.05, 0.6, 0.999):
        sigma = (1 - alpha**2) ** 0.5
        x = alpha * x0 + sigma * epsilon
        for prediction, output in ((noise, epsilon), (velocity, alpha * epsilon - sigma * x0), (clean, x0)):
            torch.testing.assert_close(prediction(output, x, alpha, sigma), x0, rtol=1e-10, atol=1e-10)


def test_the_folder_decides_what_is_predicted_and_when(random_sd: Folder) -> None:
    epsilon = StableDiffusion(str(random_sd()), Frozen())
    v = StableDiffusion(str(random_sd(prediction="v_prediction", spacing="trailing")), Frozen())
    assert (epsilon.prediction, v.prediction) == (noise, velocity)
    assert epsilon.noise_schedule.grid(10).times[-1] == 901
    assert v.noise_schedule.grid(10).times[-1] == 999
    assert epsilon.latent_shape(epsilon.size) == (4, 8, 8)


def constant_slope(model: DiffusionModel, x: Tensor, time: int) -> float:
    """Returns the mean of what autograd finds for the estimate's slope; the network must have a constant output."""
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model.denoise(x, time, model.encode(["a cat"])).sum(), x)
    assert slope.std() < 1e-6
    return slope.mean().item()


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_skip_is_the_slope_at_a_constant_output(random_sd: Folder, prediction: str) -> None:
    folder = random_sd(prediction=prediction, spacing="trailing") if prediction == "v_prediction" else random_sd()
    model = Guidance(StableDiffusion(str(folder), Frozen()), 3.0)
    nn.init.zeros_(model.model.unet.conv_out.weight)
    for time in (1, 400, 990):
        assert model.skip(time) == pytest.approx(constant_slope(model, draw(1, 4, 8, 8).float(), time), rel=1e-4)
    alpha = model.schedule(model.size).levels(400)[0]
    assert model.skip(400) == pytest.approx({"epsilon": 1 / alpha, "v_prediction": alpha}[prediction])


def test_all_stays_in_eval_mode(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), LoRA())
    whole = nn.ModuleList([Guidance(model)])
    whole.train()
    assert whole.training
    assert not any(module.training for module in model.modules())
    assert not any(module.training for module in model.train().modules())


def test_pixels_are_in_range_and_saturated_ones_have_no_gradient(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), Frozen())
    z = (3 * draw(2, 4, 8, 8)).float().requires_grad_()
    raw = model.vae.decode(z / model.vae.config.scaling_factor).sample / 2 + 0.5
    pixels = model.decode(z)
    assert pixels.shape == (2, 3, 32, 32)
    torch.testing.assert_close(pixels, raw.clamp(0, 1))
    beyond = (raw < 0) | (raw > 1)
    assert 0 < beyond.float().mean() < 1
    (from_saturated,) = torch.autograd.grad(pixels[beyond].sum(), z, retain_graph=True)
    (from_others,) = torch.autograd.grad(pixels[~beyond].sum(), z)
    assert from_saturated.abs().max() == 0
    assert from_others.abs().max() > 0


def test_slicing_changes_neither_pixels_nor_gradient(random_sd: Folder) -> None:
    results = []
    for slicing in (False, True):
        model = StableDiffusion(str(random_sd()), Frozen(), vae_slicing=slicing)
        sizes: list[int] = []
        model.vae.decoder.register_forward_hook(lambda module, args, output, sizes=sizes: sizes.append(len(args[0])))
        z = draw(3, 4, 8, 8).float().requires_grad_()
        pixels = model.decode(z)
        assert sizes == ([1, 1, 1] if slicing else [3])
        results.append((pixels.detach(), *torch.autograd.grad(pixels.square().sum(), z)))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_float64_throughout(random_sd: Folder) -> None:
    """The same image as in float32, and a gradient that finite differences confirm."""
    single, double = (
        StableDiffusion(str(random_sd(prediction="v_prediction")), LoRA(), dtype=dtype)
        for dtype in ("float32", "float64")
    )
    pictures = []
    for model, cast in ((single, torch.float32), (double, torch.float64)):
        chain = Chain(Guidance(model, 3.0), DDIM(5))
        final = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]).to(cast)).states[0]
        assert final.dtype == cast
        pictures.append(chain.model.decode(final))
        assert pictures[-1].dtype == cast
    torch.testing.assert_close(pictures[0].double(), pictures[1], rtol=0, atol=1e-4)

    condition = double.encode(PROMPTS[:1])
    x, direction = draw(1, 4, 8, 8), draw(1, 4, 8, 8, seed=1)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(double.denoise(leaf, 400, condition).square().sum(), leaf)
    with torch.no_grad():
        ahead, behind = (double.denoise(x + s * direction, 400, condition).square().sum() for s in (1e-5, -1e-5))
    assert (gradient * direction).sum().item() == pytest.approx(((ahead - behind) / 2e-5).item(), rel=1e-6)


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 0.1), ("float16", 0.01)])
def test_half_weights_keep_float32_states(random_sd: Folder, dtype: str, tolerance: float) -> None:
    folder = str(random_sd(prediction="v_prediction"))
    half, single = StableDiffusion(folder, LoRA(), dtype=dtype), StableDiffusion(folder, Frozen())
    chain = Chain(half, DDIM(5))
    trajectory = chain.sample(chain.encode(PROMPTS), chain.draw([1, 2]))
    assert half.dtype == getattr(torch, dtype)
    assert trajectory.states.dtype == half.decode(trajectory.states[0]).dtype == torch.float32
    exact = Chain(single, DDIM(5)).sample(single.encode(PROMPTS), trajectory.noises).states[0]
    assert (trajectory.states[0] - exact).abs().mean() < tolerance * exact.abs().mean()
    loss = chain.replay(trajectory, 2, 1).log_prob(trajectory.states[1]).sum()
    assert loss.dtype == torch.float32
    loss.backward()
    assert any(weight.grad.abs().max() > 0 for weight in half.trainable.values())


def test_size_sets_the_pixels(random_sd: Folder) -> None:
    model = StableDiffusion(str(random_sd()), Frozen(), size=48)
    assert model.latent_shape(model.size) == (4, 12, 12)
    chain = Chain(model, DDIM(2))
    assert model.decode(chain.sample(chain.encode(["a"]), chain.draw([0])).states[0]).shape == (1, 3, 48, 48)
    with pytest.raises(ValueError, match="positive multiples of 4 pixels, and 50 x 50 are not"):
        StableDiffusion(str(random_sd()), Frozen(), size=50)
