"""The networks of the benchmark have the published sizes, and its code runs on each family."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import StableDiffusion3Pipeline, WanPipeline

from experiments.cost import step
from experiments.cost.shapes import SHAPES, stable_diffusion3, wan
from experiments.cost.shapes.stable_diffusion import sd14
from tests.models.random_sd3 import write_random_sd3
from tests.models.random_wan import write_random_wan
from tests.models.test_published_layouts import LAYOUTS


def size(network):
    return sum(weight.numel() for weight in network.parameters())


def test_networks_have_the_published_numbers_of_weights():
    with torch.device("meta"):
        pipe = sd14()
        assert (size(pipe.unet), size(pipe.vae), size(pipe.text_encoder)) == (859_520_964, 83_653_863, 123_060_480)
        pipe = stable_diffusion3.sd35()
        assert (size(pipe.transformer), size(pipe.vae)) == (2_243_171_520, 83_819_683)
        pipe = wan.wan()
        assert (size(pipe.transformer), size(pipe.vae)) == (
            LAYOUTS["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"][4],
            126_892_531,
        )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A Stable Diffusion 3 and a Wan of small networks."""
    return write_random_sd3(tmp_path_factory.mktemp("sd3")), write_random_wan(tmp_path_factory.mktemp("wan"))


@pytest.fixture
def small(folders, monkeypatch):
    """The shapes with small networks of the same classes."""
    sd3, video = folders
    found = {
        **SHAPES,
        "sd35": replace(SHAPES["sd35"], pipeline=lambda: StableDiffusion3Pipeline.from_pretrained(sd3)),
        "wan1.3b": replace(SHAPES["wan1.3b"], pipeline=lambda: WanPipeline.from_pretrained(video)),
    }
    monkeypatch.setattr(step, "SHAPES", found)
    monkeypatch.setattr(stable_diffusion3, "SIDE", 32)
    monkeypatch.setattr(wan, "SIZE", (16, 16))
    monkeypatch.setattr(wan, "FRAMES", 5)


@pytest.mark.parametrize("shape", ["tiny", "sd35", "wan1.3b"])
def test_an_update_is_measured(shape, small, tmp_path):
    chosen = ["--shape", shape, "--batch", "2", "--steps", "6", "--dtype", "float32", "--repeats", "1"]
    step.main([*chosen, "--only", "HalfOrderRLR, one segment", "--device", "cpu", "--out", str(tmp_path)])
    result = json.loads((tmp_path / f"step_{shape}.json").read_text())
    (row,) = [row for row in result["rows"] if row["name"] == "HalfOrderRLR, one segment"]
    assert row["forward"] >= row["least_forward"] >= 6
    assert row["backward"] == row["least_backward"]
    assert row["seconds"] > 0
    assert row["peak_mib"] > 0


def test_every_shape_has_its_own_defaults():
    for name, shape in SHAPES.items():
        given = step.options(["--shape", name])
        assert (given.batch, given.steps, given.dtype) == (shape.batch, shape.steps, shape.dtype)
