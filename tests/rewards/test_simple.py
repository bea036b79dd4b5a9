"""Known answers of the rewards that need no network."""

import io

import pytest
import torch
from PIL import Image

from rlr.rewards import Brightness, JPEGCompressibility, JPEGIncompressibility
from rlr.toy.data.scenes import draw_images
from rlr.toy.rewards import ExactCheck


def test_brightness_is_the_mean():
    pixels = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4), torch.linspace(0, 1, 48).view(3, 4, 4)])
    torch.testing.assert_close(Brightness()(pixels, [""] * 3), torch.tensor([0.0, 1.0, 0.5]))


@pytest.mark.parametrize("size", [(32, 32), (40, 64)])
def test_jpeg_is_the_size_of_a_file_of_quality_95_in_kb(size, tmp_path):
    bytes_ = torch.randint(0, 256, (2, 3, *size), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    kb = []
    for i, picture in enumerate(bytes_):
        path = tmp_path / f"{i}.jpg"
        Image.fromarray(picture.permute(1, 2, 0).numpy(), "RGB").save(path, quality=95)
        kb.append(path.stat().st_size / 1000)
    # within half a byte the image is the same one
    pixels = bytes_.double() / 255 + 0.4 / 255 * (2 * torch.rand(bytes_.shape, dtype=torch.float64) - 1)
    assert JPEGIncompressibility()(pixels, ["", ""]).tolist() == pytest.approx(kb)
    assert JPEGCompressibility()(pixels, ["", ""]).tolist() == pytest.approx([-k for k in kb])


def test_jpeg_prefers_smooth_pictures_where_compressibility_is_wanted():
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = torch.cat([noise, torch.full_like(noise, 0.5)])
    rough, flat = JPEGCompressibility()(pixels, ["", ""])
    assert flat > rough + 1
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (128, 128, 128)).save(buffer, "JPEG", quality=95)
    assert flat.item() == pytest.approx(-buffer.tell() / 1000, abs=2e-3)


def test_exact_check_of_renders():
    right = ["a red circle left of a blue square on a white background", "three green triangles", "a red circle"]
    wrong = ["a red circle right of a blue square on a white background", "two green triangles", "a blue square"]
    pictures = draw_images(right, seed=0).float() / 255
    assert ExactCheck()(pictures, right).tolist() == [1, 1, 1]
    assert ExactCheck()(pictures, wrong).tolist() == [0, 0, 0]
    partial = ExactCheck(partial=True)
    assert partial(pictures, right).tolist() == [1, 1, 1]
    # one claim of six is wrong in the first (place); count of four in the last is right
    assert partial(pictures, wrong)[0].item() == pytest.approx(5 / 6)
    assert partial(pictures, wrong)[2].item() == pytest.approx(1 / 4)


def test_exact_check_needs_a_caption_of_its_world():
    with pytest.raises(ValueError, match="is not a caption of the built-in world"):
        ExactCheck()(torch.zeros(1, 3, 32, 32), ["a photo of a cat"])
