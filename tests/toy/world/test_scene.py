import numpy as np
import pytest
import torch

from rlr.toy.world.caption import SHAPES, altered, draw, parse
from rlr.toy.world.checker import CLAIMS, accuracy, check
from rlr.toy.world.prompts import held_out_prompts, training_prompts
from rlr.toy.world.render import DISTANCES, masks, render
from rlr.toy.world.scene import place


@pytest.fixture(scope="module")
def world():
    specs = [parse(caption) for caption in training_prompts(300, 11) + held_out_prompts(300, 11)]
    return specs, render([place(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)])


def test_the_check_passes_what_was_rendered(world):
    specs, pixels = world
    for claim, share in accuracy(check(pixels, specs)).items():
        assert share >= 0.99, claim


@pytest.mark.parametrize("claim", ["count", "color", "shape", "place", "background"])
def test_the_check_fails_when_one_claim_is_altered(world, claim):
    specs, pixels = world
    others = [altered(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)]
    index = [k for k, other in enumerate(others) if claim in other]
    checks = check(pixels[index], [others[k][claim] for k in index])
    assert checks[claim].mean() <= 0.01
    assert checks["all"].mean() <= 0.01


def test_the_check_judges_each_picture_alone(world):
    specs, pixels = world
    order = torch.randperm(len(specs), generator=torch.Generator().manual_seed(0))
    straight, permuted = check(pixels, specs), check(pixels[order], [specs[k] for k in order])
    for claim in CLAIMS:
        torch.testing.assert_close(permuted[claim], straight[claim][order], equal_nan=True)


def test_a_claim_that_is_not_made_is_not_judged(world):
    specs, pixels = world
    checks = check(pixels, specs)
    assert torch.equal(checks["background"].isnan(), torch.tensor([spec.tone is None for spec in specs]))
    asked = torch.tensor([bool(spec.position or spec.relation) for spec in specs])
    assert torch.equal(checks["place"].isnan(), ~asked)
    assert not checks["all"].isnan().any()


def test_the_check_survives_a_little_noise(world):
    specs, pixels = world
    noisy = pixels + 0.02 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    assert check(noisy.clamp(0, 1), specs)["all"].mean() >= 0.97


def test_noise_and_empty_pictures_fail():
    specs = [parse("a red circle")] * 3
    noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert check(noise, specs)["all"].sum() == 0
    assert check(torch.full((3, 3, 32, 32), 0.5), specs)["all"].sum() == 0


def test_rendering_is_deterministic_and_in_range(world):
    specs, pixels = world
    again = render([place(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)])
    assert torch.equal(pixels, again)
    assert pixels.min() >= 0
    assert pixels.max() <= 1


def test_a_batch_renders_what_its_scenes_render_alone(world):
    specs, pixels = world
    for k in range(0, 40, 7):
        torch.testing.assert_close(render([place(specs[k], np.random.default_rng(k))])[0], pixels[k])


def test_the_check_works_at_twice_the_size():
    specs = [draw(np.random.default_rng(k)) for k in range(100)]
    pixels = render([place(spec, np.random.default_rng(k)) for k, spec in enumerate(specs)], side=64)
    assert check(pixels, specs)["all"].mean() >= 0.98


def test_a_mask_covers_the_area_of_its_shape():
    half = torch.tensor([0.5])
    disc = masks("circle", half, half, torch.tensor([0.3]), 256).sum() / 256**2
    assert disc == pytest.approx(np.pi * (0.98 * 0.3) ** 2, rel=0.01)
    assert set(DISTANCES) == set(SHAPES)
    for shape in SHAPES:
        small, large = (masks(shape, half, half, torch.tensor([r]), 256).sum() for r in (0.15, 0.3))
        assert large / small == pytest.approx(4, rel=0.03)
