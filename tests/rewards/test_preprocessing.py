"""Each way of preprocessing against what the authors' programs make of the same images, at the real size 224."""

import pytest
import torch

from rlr.rewards.networks.preprocessing import (
    CropShortest,
    PadLongest,
    PillowCropShortest,
    Squash,
    even_offset,
    floor_offset,
    normalize_pixels,
)
from tests.rewards.authors import picture, to01
from tests.rewards.recipe import recipe_fill
from tests.rewards.vectors import reads

PICTURES = range(6)
OF_FILES = {"hps_pil": PadLongest(), "clip_pil": PillowCropShortest(even_offset)}
OF_PIXELS = {
    "vader_bilinear_squash": Squash("bilinear"),
    "vader_pickscore_bicubic": CropShortest(floor_offset),
    "refl_bicubic": CropShortest(even_offset),
}
# AlignProp resizes without a crop, which works for squares alone; they are the third image and the fifth
SQUARES = {"alignprop_bilinear_square_only": Squash("bilinear")}
CASES = [(name, i) for name in OF_PIXELS for i in PICTURES] + [(name, i) for name in SQUARES for i in (2, 4)]


def matches(found, grid, stats):
    """The pixels are right on the stored grid, and mean, deviation and extremes over all of them."""
    torch.testing.assert_close(found[0, :, 2::5, 2::5], grid, atol=1e-5, rtol=0)
    torch.testing.assert_close(
        torch.stack([found.mean(), found.std(), found.min(), found.max()]), stats, atol=1e-5, rtol=0
    )


@reads("preprocess_224", "inputs.image_{i}", "outputs.{name}.{i}", "outputs.{name}.{i}.stats")
@pytest.mark.parametrize("i", PICTURES)
@pytest.mark.parametrize("name", OF_FILES)
def test_of_files(vectors, name, i):
    found = normalize_pixels(OF_FILES[name](picture(vectors[f"inputs.image_{i}"]), 224))
    matches(found, vectors[f"outputs.{name}.{i}"], vectors[f"outputs.{name}.{i}.stats"])


@reads("preprocess_224", "inputs.image_{i}", "outputs.hf_pil.{i}", "outputs.clip_pil.{i}")
@pytest.mark.parametrize("i", PICTURES)
def test_the_crop_of_transformers_begins_a_pixel_earlier_where_the_surplus_is_3_mod_4(vectors, i):
    found = normalize_pixels(PillowCropShortest(floor_offset)(picture(vectors[f"inputs.image_{i}"]), 224))
    expected = vectors[f"outputs.hf_pil.{i}"]
    torch.testing.assert_close(found[0, :, 2::5, 2::5], expected, atol=1e-5, rtol=0)
    # of 260 columns the last image keeps 227
    assert ((expected - vectors[f"outputs.clip_pil.{i}"]).abs().max() > 1) == (i == 5)


@reads("preprocess_224", "inputs.image_{i}", *(f"outputs.{{name}}.{{i}}{part}" for part in ("", ".stats", ".vjp")))
@pytest.mark.parametrize(("name", "i"), CASES)
def test_of_pixels_with_the_gradient(vectors, name, i):
    x = ((picture(vectors[f"inputs.image_{i}"]) * 2 - 1) * 1.15).requires_grad_()
    found = normalize_pixels((OF_PIXELS | SQUARES)[name](to01(x), 224))
    matches(found.detach(), vectors[f"outputs.{name}.{i}"], vectors[f"outputs.{name}.{i}.stats"])
    cotangent = recipe_fill(f"cotangent.{i}", (1, 3, 224, 224), "public", 0.0, 1.0)
    (vjp,) = torch.autograd.grad(found, x, cotangent)
    torch.testing.assert_close(vjp[0, :, 2::5, 2::5], vectors[f"outputs.{name}.{i}.vjp"], atol=1e-5, rtol=0)


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
