"""What objects would read, noted without reading it."""

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn

from rlr.io import weights
from rlr.io.hub import Published, find, weights_here
from rlr.io.inventory import Source, note, on_meta, taken, without_weights
from rlr.io.offline import offline


def test_sources_are_noted_once_and_stay_missing():
    with without_weights() as inventory:
        for here in (True, False, True):
            note("me/model", "unet", here)
        note("me/model", "vae", True)
    assert inventory.sources == [Source("me/model", "unet", False), Source("me/model", "vae", True)]
    assert inventory.missing == inventory.sources[:1]


def test_outside_nothing_is_noted():
    note("me/model", "unet", False)
    assert taken() is None


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (Source("me/model", "unet", False), "hf download me/model"),
        (Source("me/model", "model.ckpt", False), "hf download me/model model.ckpt"),
        (Source("me/model", "tokenizer", False), "hf download me/model --include '*.json' '*.txt'"),
        (Source("me/prompts", "", False, dataset=True), "hf download --repo-type dataset me/prompts"),
        (Source("/models/sd", "unet", False), "put it into /models/sd, or set another path"),
        (Source("./models/sd", "unet", False), "put it into ./models/sd, or set another path"),
    ],
)
def test_the_command_gets_what_is_missing(source, command):
    assert source.remedy == command


def test_a_file_that_is_found_is_noted(tmp_path):
    file = tmp_path / "head.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with without_weights() as inventory:
        find(str(tmp_path), [Published("head.safetensors")])
        with pytest.raises(FileNotFoundError), offline():
            find("me/none", [Published("head.safetensors")])
    assert [(s.name, s.part, s.here) for s in inventory.sources] == [
        (str(tmp_path), "head.safetensors", True),
        ("me/none", "head.safetensors", False),
    ]


def test_large_files_have_shapes_alone(tmp_path, monkeypatch):
    file = tmp_path / "head.safetensors"
    save_file({"weight": torch.ones(4, dtype=torch.float16)}, file)
    with without_weights():
        assert not weights.read_state(file)["weight"].is_meta
        monkeypatch.setattr(weights, "SMALL", 1)
        found = weights.read_state(file)["weight"]
    assert (found.is_meta, found.dtype, tuple(found.shape)) == (True, torch.float32, (4,))
    assert torch.equal(weights.read_state(file)["weight"], torch.ones(4))


@pytest.mark.parametrize(
    ("files", "here"),
    [
        ([], False),
        (["model.safetensors"], True),
        (["model-00001-of-00002.safetensors"], False),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], True),
        (["diffusion_pytorch_model.bin"], True),
    ],
)
def test_weights_are_here_if_every_shard_is(tmp_path, files, here):
    (tmp_path / "unet").mkdir()
    for name in files:
        (tmp_path / "unet" / name).touch()
    assert weights_here(str(tmp_path), "unet") is here


def test_weights_in_the_cache_of_the_hub_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    assert not weights_here("me/model", "unet")
    repository = tmp_path / "models--me--model"
    folder = repository / "snapshots" / "0123" / "unet"
    folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123")
    (folder / "config.json").write_text("{}")
    assert not weights_here("me/model", "unet")
    (folder / "diffusion_pytorch_model.safetensors").touch()
    assert weights_here("me/model", "unet")


def test_no_tensor_of_a_network_has_content():
    network = nn.BatchNorm1d(3)
    assert all(tensor.is_meta for tensor in on_meta(network).state_dict().values())
