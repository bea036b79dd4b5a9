"""Chains of VideoCrafter against recorded ones of its authors' sampler."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.models import Condition, Frozen, Guidance, VideoCrafter
from rlr.samplers import DDIM
from rlr.schedules import Grid, RescaledSchedule
from tests.models.vectors import Vectors, load, write_checkpoint

CASES = ["v2.s5_eta0_cfg12", "v2.s10_eta0_cfg12", "v2.s5_eta1_cfg12", "noscale.s5_eta0_cfg12", "noscale.s5_eta1_cfg1"]
TABLE, STEP, RUN, LAST = 1e-6, 2e-6, 5e-5, 9e-5
"""Tolerances: absolute of tables, of the largest value for one step and for a whole chain."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], VideoCrafter]:
    """Returns a function that returns the model of a group of cases."""

    @cache
    def model(group: str) -> VideoCrafter:
        folder = tmp_path_factory.mktemp(group)
        write_checkpoint(folder, "unet_v2_tiny", scale=group == "v2")
        return VideoCrafter(str(folder), trainable=Frozen(), fps=28)

    return model


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    return load("ddim_v2_tiny")


def settings(vectors: Vectors, case: str) -> dict[str, float]:
    group, name = case.split(".")
    return vectors.config["groups"][group]["cases"][name]


def chain_of(models: Callable[[str], VideoCrafter], vectors: Vectors, case: str) -> tuple[Chain, Condition]:
    """The chain of a case and the condition that it was recorded with."""
    group, given = case.split(".")[0], settings(vectors, case)
    inputs = vectors.within(f"inputs.{group}.")
    text, fps = inputs["context"], inputs["fps"]
    if given["cfg_scale"] != 1:
        text, fps = torch.stack([text, inputs["uncond_context"]], 1), torch.stack([fps, fps], 1)
    chain = Chain(Guidance(models(group), given["cfg_scale"]), DDIM(int(given["S"]), given["eta"]))
    return chain, Condition({"text": text, "fps": fps})


def run(chain: Chain, condition: Condition, x: Tensor, noise: Tensor | None) -> tuple[Tensor, Tensor]:
    """The states and estimates of a chain, in the order in which they were made."""
    states, estimates = [x], []
    for k, t in enumerate(range(chain.steps, 0, -1)):
        estimates.append(chain.denoise(states[-1], t, condition))
        transition = chain.sampler.transition(estimates[-1], states[-1], t, chain.grid)
        states.append(transition.sample(torch.zeros_like(x) if noise is None else noise[k]))
    return torch.stack(states), torch.stack(estimates)


@pytest.mark.parametrize("case", CASES)
def test_tables_are_theirs(models: Callable[[str], VideoCrafter], vectors: Vectors, case: str) -> None:
    chain, _ = chain_of(models, vectors, case)
    grid, tables = chain.grid, vectors.within(f"outputs.{case}.ddim_")
    assert list(grid.times[1:]) == tables["timesteps"].tolist()
    ones = torch.ones(chain.steps)
    found = {
        "alphas": [1 - sigma**2 for sigma in grid.sigmas[1:]],
        "alphas_prev": [1 - sigma**2 for sigma in grid.sigmas[:-1]],
        "sigmas": [chain.std(t) for t in range(1, chain.steps + 1)],
        "scale": grid.scales[1:],
        "scale_prev": grid.scales[:-1],
    }
    for name, values in found.items():
        expected = tables.get(name, ones).double()
        torch.testing.assert_close(torch.tensor(values, dtype=torch.float64), expected, rtol=0, atol=TABLE)


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_chains_are_theirs(models: Callable[[str], VideoCrafter], vectors: Vectors, case: str) -> None:
    chain, condition = chain_of(models, vectors, case)
    inputs, outputs = vectors.within(f"inputs.{case}."), vectors.within(f"outputs.{case}.")
    states, estimates = run(chain, condition, inputs["x_T"], inputs.get("noise"))
    # of some only the last state is kept
    scale = outputs["x"].abs().max()
    assert (states[-len(outputs["x"]) :] - outputs["x"]).abs().max() < RUN * scale
    if "pred_x0" in outputs:
        assert (estimates - outputs["pred_x0"]).abs().max() < LAST * scale


@torch.no_grad()
def test_seven_steps_are_a_chain_of_their_eight(models: Callable[[str], VideoCrafter], vectors: Vectors) -> None:
    """⌊1000 / 7⌋ = 142 has eight multiples below 1000, and their sampler makes a step for each; here its equations written out."""
    inputs, model = vectors.within("inputs.v2."), models("v2")
    condition = Condition({"text": inputs["context"], "fps": inputs["fps"]})
    chain = Chain(model, DDIM(7, eta=0.0))
    x = vectors[f"inputs.{CASES[0]}.x_T"]
    seen: list[int] = []
    hook = model.network.register_forward_pre_hook(lambda network, args: seen.append(int(args[1].flatten()[0])))
    noises = torch.cat([torch.zeros(chain.steps, *x.shape), x[None]])
    states = chain.sample(condition, noises).states
    hook.remove()
    times = [1 + 142 * k for k in range(8)]
    assert seen == times[::-1]
    assert states.shape == (9, *x.shape)
    cumulated, scales = RescaledSchedule.scaled_linear().double(), RescaledSchedule.ramp(0.7).double()
    for time, before in zip(times[::-1], [*times[-2::-1], 0], strict=True):
        a, a_before = cumulated[time], cumulated[before]
        # their estimate is of the latent without the rescaling of the time
        estimate = scales[time] * model.denoise(x, time, condition)
        noise = (x - a.sqrt() * estimate) / (1 - a).sqrt()
        x = a_before.sqrt() * estimate * scales[before] / scales[time] + (1 - a_before).sqrt() * noise
    assert (states[0] - x).abs().max() < RUN * x.abs().max()


def one_step_error(vectors: Vectors, case: str, alter: Callable[[Grid], Grid] = lambda grid: grid) -> float:
    """The largest error of single steps from recorded states and noise predictions, guided in our way."""
    given, outputs = settings(vectors, case), vectors.within(f"outputs.{case}.")
    noise = vectors[f"inputs.{case}.noise"]
    schedule = RescaledSchedule(RescaledSchedule.scaled_linear(), RescaledSchedule.ramp(0.7))
    grid, sampler = alter(schedule.grid(int(given["S"]))), DDIM(int(given["S"]), given["eta"])
    errors = []
    for k, t in enumerate(range(sampler.steps, 0, -1)):
        x = outputs["x"][k]
        guess = [(x - grid.sigmas[t] * outputs[name][k]) / grid.alphas[t] for name in ("eps_cond", "eps_uncond")]
        denoised = guess[1] + given["cfg_scale"] * (guess[0] - guess[1])
        following = sampler.transition(denoised, x, t, grid).sample(noise[k])
        errors.append((following - outputs["x"][k + 1]).abs().max() / outputs["x"][k + 1].abs().max())
    return max(errors).item()


def test_one_step_with_guided_estimates_is_one_with_guided_noise(vectors: Vectors) -> None:
    """Guidance 12 of the rescaled estimates is that of their noise predictions."""
    assert one_step_error(vectors, "v2.s5_eta1_cfg12") < STEP


def test_a_step_that_takes_the_rescale_for_signal_is_seen(vectors: Vectors) -> None:
    """With the rescaled levels in the standard deviation, or without any rescale."""

    def forgetful(grid: Grid) -> Grid:
        return Grid(grid.times, grid.alphas, grid.sigmas)

    def plain(grid: Grid) -> Grid:
        return Grid(grid.times, tuple(map(grid.unscaled, range(len(grid.times)))), grid.sigmas)

    assert one_step_error(vectors, "v2.s5_eta1_cfg12", forgetful) > 100 * STEP
    assert one_step_error(vectors, "v2.s5_eta1_cfg12", plain) > 100 * STEP


def test_noising_is_theirs(models: Callable[[str], VideoCrafter], vectors: Vectors) -> None:
    given, schedule = vectors.within("inputs.v2.q."), models("v2").noise_schedule
    for k, time in enumerate(given["t"].tolist()):
        alpha, sigma = schedule.levels(time)
        noisy = alpha * given["x0"][k] + sigma * given["noise"][k]
        torch.testing.assert_close(noisy, vectors["outputs.v2.q.x_t"][k], rtol=0, atol=TABLE)


def test_a_velocity_is_of_the_rescaled_latent(models: Callable[[str], VideoCrafter]) -> None:
    r"""With :math:`v = \sqrt{\bar\alpha} \epsilon - \sigma s x_0` as output, the estimate is :math:`x_0` itself."""
    model = models("v2")
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 1, 4, 4, 8, 8, generator=generator, dtype=torch.float64)
    for time in (1, 200, 801):
        (alpha, sigma), scale = model.noise_schedule.levels(time), model.noise_schedule.scale(time)
        velocity = alpha / scale * noise - sigma * scale * x0
        for name, output in (("v", velocity), ("eps", noise), ("x0", scale * x0)):
            prediction = replace(model.architecture, parameterization=name).prediction
            estimate = prediction(output, alpha * x0 + sigma * noise, alpha / scale, sigma) / scale
            torch.testing.assert_close(estimate, x0, rtol=1e-9, atol=1e-9)
