"""Each way of preprocessing against what the authors' programs make of the same pictures, at the real size 224."""

import numpy as np
import pytest
import torch
from PIL import Image

from rlr.rewards.preprocessing import (
    CropShortest,
    PadLongest,
    PillowCropShortest,
    Squash,
    even_offset,
    floor_offset,
    normalise,
)
from tests.rewards.authors import FIXTURES, tensors, to01
from tests.rewards.recipe import recipe_fill

PICTURES = (0, 1, 2, 3, 5)
OF_FILES = {"hps_pil": PadLongest(), "clip_pil": PillowCropShortest(even_offset)}
OF_PIXELS = {
    "vader_bilinear_squash": Squash("bilinear"),
    "vader_pickscore_bicubic": CropShortest(floor_offset),
    "refl_bicubic": CropShortest(even_offset),
}


def read(i):
    return torch.from_numpy(np.array(Image.open(FIXTURES / f"preprocess_{i}.png"))).permute(2, 0, 1)[None] / 255


def matches(found, name):
    """Whether the pixels are right on the stored grid, and mean, deviation and extremes over all of them."""
    expected = tensors("preprocess")
    torch.testing.assert_close(found[0, :, 2::5, 2::5], expected[name], atol=1e-5, rtol=0)
    if f"{name}.stats" in expected:
        stats = torch.stack([found.mean(), found.std(), found.min(), found.max()])
        torch.testing.assert_close(stats, expected[f"{name}.stats"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("i", PICTURES)
@pytest.mark.parametrize("name", OF_FILES)
def test_of_files(name, i):
    matches(normalise(OF_FILES[name](read(i), 224)), f"{name}.{i}")


def test_the_crop_of_transformers_begins_a_pixel_earlier_where_the_surplus_is_3_mod_4():
    pixels = normalise(PillowCropShortest(floor_offset)(read(5), 224))
    matches(pixels, "hf_pil.5")
    assert (pixels - normalise(PillowCropShortest(even_offset)(read(5), 224))).abs().max() > 1


@pytest.mark.parametrize("i", PICTURES)
@pytest.mark.parametrize("name", OF_PIXELS)
def test_of_pixels_with_the_gradient(name, i):
    x = ((read(i) * 2 - 1) * 1.15).requires_grad_()
    found = normalise(OF_PIXELS[name](to01(x), 224))
    matches(found.detach(), f"{name}.{i}")
    cotangent = recipe_fill(f"cotangent.{i}", (1, 3, 224, 224), "public", 0.0, 1.0)
    (vjp,) = torch.autograd.grad(found, x, cotangent)
    torch.testing.assert_close(vjp[0, :, 2::5, 2::5], tensors("preprocess")[f"{name}.{i}.vjp"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("fit", [*OF_FILES.values(), *OF_PIXELS.values()], ids=lambda fit: type(fit).__name__)
def test_a_gradient_iff_it_says_so(fit):
    pixels = torch.rand(2, 3, 20, 31, requires_grad=True)
    squares = fit(pixels, 16)
    assert squares.shape == (2, 3, 16, 16)
    assert squares.requires_grad == fit.differentiable


@pytest.mark.parametrize("fit", [*OF_FILES.values(), *OF_PIXELS.values()], ids=lambda fit: type(fit).__name__)
def test_a_picture_of_the_right_size_stays_itself(fit):
    pixels = torch.randint(0, 256, (2, 3, 16, 16), generator=torch.Generator().manual_seed(0)) / 255
    torch.testing.assert_close(fit(pixels, 16), pixels, atol=0, rtol=0)


def test_padding_is_black_and_centred_also_where_nothing_is_resized():
    squares = PadLongest()(torch.ones(1, 3, 16, 9), 16)
    columns = squares[0, 0].mean(0)
    # 16 - 9 = 7, of which 7 // 2 = 3 go to the left
    assert columns.tolist() == [0.0] * 3 + [1.0] * 9 + [0.0] * 4


@pytest.mark.parametrize(("shape", "width"), [((320, 45), 31), ((320, 135), 94)])
def test_padding_rounds_the_product_with_the_scale(shape, width):
    # 45 * (224 / 320) is a hair below 31.5, and 135 * (224 / 320) is rounded to 94.5: the order of the operations shows
    columns = PadLongest()(torch.ones(1, 3, *shape), 224)[0, 0].mean(0)
    assert (columns > 0).sum() == width


def test_crop_is_of_the_centre():
    wide = torch.zeros(1, 3, 4, 11)
    wide[..., 3:7] = 1  # the surplus is 7, of which 7 // 2 = 3 go to the left
    assert CropShortest()(wide, 4).min() == 1
