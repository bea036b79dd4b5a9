"""T2V-Turbo: its LoRA in the published format, its guidance as an input, its chain and its export."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rlr.chain import Chain
from rlr.io.weights import blank
from rlr.models import Architecture, Frozen, LoRA, T2VTurbo, VideoCrafter
from rlr.models.export import OfficialVideoCrafter
from rlr.models.videocrafter.keys import in_order, unet_layout
from rlr.models.videocrafter.lora_list import add_lora, layers
from rlr.models.videocrafter.network import GuidedUNetConfig
from rlr.samplers import Consistency
from tests.models.random_turbo import GUIDED, UNET, random_factors, recorded, walk, walked, write_random_turbo
from tests.models.random_vc import small
from tests.models.test_videocrafter_checkpoint import alter, estimate
from tests.models.vectors import keys

LAYERS = {
    "a linear layer": "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight",
    "the prompt's": "output_blocks.2.1.transformer_blocks.0.attn2.to_k.weight",
    "between frames": "init_attn.0.transformer_blocks.0.ff.net.0.proj.weight",
    "the guidance's": GUIDED,
    "a convolution": "middle_block.3.out_layers.3.weight",
    "of few channels": "input_blocks.0.0.weight",
    "with a stride": "input_blocks.2.0.op.weight",
    "of one point": "output_blocks.0.0.skip_connection.weight",
    "over frames": "output_blocks.3.0.temopral_conv.conv2.3.weight",
}
"""A layer of each kind."""


def theirs(model: VideoCrafter) -> dict[str, Tensor]:
    return unet_layout(model.architecture.unet).to_theirs(model.unet.state_dict())


def turbo(folder: Path, **options: Any) -> VideoCrafter:
    variant = T2VTurbo(**{"path": str(folder)} | options)
    return VideoCrafter(str(folder), trainable=Frozen(), variant=variant)


@pytest.fixture(scope="module")
def model(random_vc: Path) -> VideoCrafter:
    return turbo(random_vc)


@pytest.fixture(scope="module")
def base(random_vc: Path) -> VideoCrafter:
    return VideoCrafter(str(random_vc), trainable=Frozen())


@pytest.fixture(scope="module")
def factors(random_vc: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """The factors of each layer in the file."""
    found = torch.load(random_vc / "unet_lora.pt", weights_only=True)
    return {name: (found[2 * k], found[2 * k + 1]) for k, name in enumerate(walk(small()))}


@pytest.mark.parametrize("version", keys())
def test_the_order_of_names_is_that_of_the_recorded_checkpoints(version: str) -> None:
    names = recorded(version)
    shuffled = random.Random(0).sample(names, len(names))
    assert in_order(shuffled) == names != shuffled


def test_the_walk_over_the_published_model() -> None:
    shapes = {name.removeprefix(UNET): shape for name, shape in keys()["t2v_512_v2.0"].items()}
    unet = GuidedUNetConfig()
    ours = unet_layout(unet).to_theirs(blank(replace(Architecture(), unet=unet).build_unet).state_dict())
    expected = walked(recorded(), shapes)
    assert layers(ours) == list(expected)
    assert {name: tuple(ours[name].shape) for name in expected} == expected
    assert [sum(len(s) == axes for s in expected.values()) for axes in (2, 4, 5)] == [421, 66, 88]
    assert sum(name.endswith("to_q.weight") for name in expected) == 2 * 33
    # the program does not visit convolutions over one axis
    assert not any(name.startswith("init_attn.0.proj") for name in expected)


@pytest.mark.parametrize("kind", LAYERS)
def test_the_sum_of_each_kind_of_layer_is_that_by_hand(
    model: VideoCrafter, base: VideoCrafter, factors: dict[str, tuple[Tensor, Tensor]], kind: str
) -> None:
    name = LAYERS[kind]
    up, down = factors[name]
    weight = model.turbo._projection(16) if name == GUIDED else theirs(base)[name]
    product = torch.zeros(weight.shape)
    for out in range(up.shape[0]):
        product[out] = sum(up[out, r].squeeze() * down[r] for r in range(len(down)))
    torch.testing.assert_close(theirs(model)[name], weight + product, rtol=0, atol=1e-6)
    assert product.abs().mean() > 1e-3


def test_what_has_no_factors_stays(model: VideoCrafter, base: VideoCrafter, factors: dict[str, Any]) -> None:
    found, expected = theirs(model), theirs(base)
    assert found.keys() == expected.keys() | {GUIDED}
    stayed = {name for name, weight in expected.items() if torch.equal(weight, found[name])}
    assert stayed == expected.keys() - factors.keys()
    assert {"init_attn.0.proj_in.weight", "time_embed.0.bias", "out.0.weight"} <= stayed


def test_a_sum_is_both_paths_of_the_published_layers() -> None:
    """The layer, and beside it the convolution by A with the layer's stride and padding, then that by B at single points."""
    generator = torch.Generator().manual_seed(0)
    cases: list[tuple[Any, Any, Any, dict[str, Any]]] = [
        (nn.Conv2d(6, 8, 3), F.conv2d, (2, 6, 9, 7), {"stride": 2, "padding": 1}),
        (nn.Conv3d(6, 8, (3, 1, 1)), F.conv3d, (2, 6, 5, 3, 2), {"padding": (1, 0, 0)}),
        (nn.Linear(6, 8), F.linear, (2, 5, 6), {}),
    ]
    for layer, apply, shape, options in cases:
        weight = layer.weight.detach().double()
        up, down = (factor.detach().double() for factor in random_factors([weight.shape], rank=3))
        merged = add_lora({"out.2.weight": weight}, {"out.2.weight": weight}, [up, down], Path("x"), torch.float64)
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        paths = apply(x, weight, **options) + apply(apply(x, down, **options), up)
        torch.testing.assert_close(apply(x, merged["out.2.weight"], **options), paths, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (
            lambda f: f.pop(),
            r"expected \d+ tensors, two for each of the denoiser's \d+ layers, found \d+; set the LoRA",
        ),
        (lambda f: f.append(f[0]), r"expected \d+ tensors, two for each of the denoiser's \d+ layers, found \d+; set"),
        (
            lambda f: f.reverse(),
            r"for time_embed\.0\.weight, found \(4, 16, 3, 3\) and \(4, 4, 1, 1\); set the LoRA",
        ),
        (lambda f: f.insert(0, f.pop(1)), r"factors of shape \(64, r\) and \(r, 16\) for time_embed\.0\.weight, found"),
        (
            lambda f: f.insert(8, f.pop(10)),
            r"factors of shape \(16, r\) and \(r, 256\) for time_cond_proj\.weight, found",
        ),
        (lambda f: f.__setitem__(0, torch.zeros(64, 0)), r"for time_embed\.0\.weight, found \(64, 0\) and \(16, 16\);"),
        (lambda f: f.__setitem__(3, torch.tensor(1.0)), r"for time_embed\.2\.weight, found \(64, 64\) and \(\);"),
        (
            lambda f: f.__setitem__(0, 1.0),
            "expected a list of tensors, found a list with a float; set the unet_lora.pt",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_one_sentence(
    random_vc: Path, tmp_path: Path, change: Callable[[list[Any]], object], fact: str
) -> None:
    found: list[Any] = random_factors(walk(small()).values())
    change(found)
    torch.save(found, tmp_path / "unet_lora.pt")
    with pytest.raises(ValueError, match=rf"unet_lora\.pt: expected .*{fact}|unet_lora\.pt: {fact}") as error:
        turbo(random_vc, path=str(tmp_path))
    assert "\n" not in str(error.value)


def test_files_of_other_kinds_are_one_sentence(random_vc: Path, tmp_path: Path) -> None:
    torch.save({"lora": torch.zeros(2)}, tmp_path / "unet_lora.pt")
    with pytest.raises(ValueError, match=r"expected a list of tensors, found a dict; set the unet_lora\.pt that"):
        turbo(random_vc, path=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"unet_lora\.pt was not found in 'nobody/nothing'"):
        turbo(random_vc, path="nobody/nothing")
    broken = alter(random_vc, tmp_path, lambda state: state.pop(f"{UNET}out.2.weight"))
    with pytest.raises(ValueError, match=r"out\.2\.weight is missing .* set the model\.ckpt of this very model"):
        VideoCrafter(broken, variant=T2VTurbo(str(random_vc)))


def test_any_rank_is_read(random_vc: Path, tmp_path: Path, model: VideoCrafter) -> None:
    write_random_turbo(tmp_path, small(), rank=3)
    assert (estimate(turbo(random_vc, path=str(tmp_path))) - estimate(model)).abs().max() > 1e-3


def test_the_seed_decides_what_is_not_published(random_vc: Path, model: VideoCrafter, factors: dict[str, Any]) -> None:
    before = torch.get_rng_state()
    same, other = turbo(random_vc), turbo(random_vc, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(theirs(same)[GUIDED], theirs(model)[GUIDED])
    changed = {name for name, weight in theirs(other).items() if not torch.equal(weight, theirs(model)[name])}
    assert changed == {GUIDED}
    # uniform as torch draws a linear layer of 256 inputs: in ± 1/16, with the variance of that
    drawn, layer = T2VTurbo(seed=3)._projection(320), nn.Linear(256, 320, bias=False).weight
    assert drawn.shape == layer.shape
    assert drawn.abs().max() <= 1 / 16
    assert drawn.var().item() == pytest.approx(1 / 16**2 / 3, rel=0.02)
    assert layer.var().item() == pytest.approx(1 / 16**2 / 3, rel=0.02)


def test_the_embedding_of_the_guidance_is_its_formula() -> None:
    found = T2VTurbo(guidance=7.5).embedding(2, torch.device("cpu"))
    rates = [7500 * math.exp(-math.log(10000) * k / 127) for k in range(128)]
    expected = torch.tensor([*map(math.sin, rates), *map(math.cos, rates)])
    assert found.shape == (2, 256)
    torch.testing.assert_close(found, expected.expand(2, -1), rtol=0, atol=2e-3)


def test_the_network_adds_the_guidance_to_the_sinusoids_of_the_step(model: VideoCrafter) -> None:
    embedding, generator = model.unet.time_embedding, torch.Generator().manual_seed(0)
    time, fps, e = (torch.randn(2, width, generator=generator) for width in (16, 16, 256))
    inner = embedding.time
    step = inner.linear_2(F.silu(inner.linear_1(time + e @ theirs(model)[GUIDED].T)))
    torch.testing.assert_close(embedding(time, torch.cat([fps, e], -1)), step + embedding.fps(fps))
    torch.testing.assert_close(embedding(time, fps), inner(time) + embedding.fps(fps))


def test_another_guidance_gives_another_estimate(random_vc: Path, model: VideoCrafter) -> None:
    assert (estimate(turbo(random_vc, guidance=5.0)) - estimate(model)).abs().max() > 1e-4
    assert torch.equal(estimate(turbo(random_vc)), estimate(model))


def test_a_chain_of_four_steps_is_the_published_program(model: VideoCrafter) -> None:
    chain = Chain(model, Consistency(4))
    condition, noises = chain.encode(["a red circle"]), chain.draw([0])
    trajectory = chain.sample(condition, noises)
    assert chain.noisy_steps == [2, 3, 4]
    assert chain.grid.times[1:] == (249, 499, 749, 999)
    abar = model.noise_schedule.alphas_cumprod.float()
    x = noises[4]
    for t, (time, after) in zip((4, 3, 2, 1), ((999, 749), (749, 499), (499, 249), (249, None)), strict=True):
        with torch.no_grad():
            x0 = model.denoise(x, time, condition)
        c_skip, c_out = 0.25 / ((time / 0.1) ** 2 + 0.25), time / 0.1 / ((time / 0.1) ** 2 + 0.25) ** 0.5
        denoised = c_out * x0 + c_skip * x
        x = denoised if after is None else abar[after].sqrt() * denoised + (1 - abar[after]).sqrt() * noises[t - 1]
        torch.testing.assert_close(trajectory.states[t - 1], x, rtol=1e-4, atol=1e-4)
    # the signal is not rescaled, although the file states a rescaling, and the last state has no noise
    assert chain.grid.alphas[0] == 1
    assert chain.grid.sigmas[0] == 0
    assert all(a**2 + s**2 == pytest.approx(1) for a, s in zip(chain.grid.alphas, chain.grid.sigmas, strict=True))


def test_an_export_holds_the_lora_and_reads_a_guidance(random_vc: Path, tmp_path: Path) -> None:
    variant = T2VTurbo(str(random_vc))
    model = VideoCrafter(str(random_vc), trainable=LoRA(rank=2), variant=variant)
    generator = torch.Generator().manual_seed(0)
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=generator)
    folder = tmp_path / "whole"
    OfficialVideoCrafter().write(model, folder)
    again = VideoCrafter(str(folder), trainable=Frozen(), variant=T2VTurbo(None))
    torch.testing.assert_close(estimate(again), estimate(model), rtol=1e-4, atol=1e-4)
    assert again.noise_schedule.grid(4) == model.noise_schedule.grid(4)
    with pytest.raises(ValueError, match="found a denoiser with a guidance scale as input; set variant to a T2VTurbo"):
        VideoCrafter(str(folder))
    with pytest.raises(
        ValueError, match=r"expected VideoCrafter2, found a denoiser with .*; set variant\.path to null"
    ):
        VideoCrafter(str(folder), variant=variant)
    with pytest.raises(
        ValueError, match=r"expected T2V-Turbo's weights, found a denoiser without .*; set variant\.path"
    ):
        VideoCrafter(str(random_vc), variant=T2VTurbo(None))


def test_other_numbers_are_refused() -> None:
    for options in ({"guidance": 0.0}, {"origin": 0}, {"origin": 1001}):
        with pytest.raises(ValueError, match="T2VTurbo: expected guidance above 0 and origin in 1 … 1000, got"):
            T2VTurbo(**options)


def test_half_of_the_digits_are_those_of_the_sum(random_vc: Path, model: VideoCrafter) -> None:
    half = VideoCrafter(str(random_vc), trainable=Frozen(), dtype="bfloat16", variant=T2VTurbo(str(random_vc)))
    expected = theirs(model)
    assert all(torch.equal(weight, expected[name].bfloat16()) for name, weight in theirs(half).items())
    assert estimate(half).isfinite().all()
