"""Models in the folder layout of transformers."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPModel

from rlr.rewards.networks.pretrained import pretrained
from tests.io.test_weights import Code
from tests.rewards.folder import FOLDER


@pytest.fixture
def folder(tmp_path):
    """A CLIP model in the layout of transformers without its weights, and those."""
    (tmp_path / "config.json").write_bytes((FOLDER / "config.json").read_bytes())
    return tmp_path, load_file(FOLDER / "model.safetensors")


def clip(folder):
    return pretrained(CLIPModel, str(folder))


def test_a_folder_of_transformers_that_lacks_a_weight(folder):
    folder, state = folder
    del state["visual_projection.weight"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of CLIPModel, such as visual_projection\.weight"):
        clip(folder)


def test_a_folder_of_transformers_with_another_shape(folder):
    folder, state = folder
    save_file(state | {"visual_projection.weight": torch.zeros(3, 3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"has in another shape 1 weights of CLIPModel, such as visual_projection\.weight; set"
    ):
        clip(folder)


def test_a_folder_of_transformers_with_weights_of_another_network(folder):
    folder, state = folder
    extra = {f"vision_model.extra.{i}": torch.zeros(1) for i in range(4)}
    save_file(state | extra, folder / "model.safetensors", {"format": "pt"})
    message = (
        r"holds 4 weights that CLIPModel does not have and that are not read: vision_model\.extra\.0, .*\.2, …; check"
    )
    with pytest.warns(UserWarning, match=message):
        clip(folder)


def test_numbers_of_positions_are_no_weights(folder, recwarn):
    folder, state = folder
    numbers = {f"{tower}.embeddings.position_ids": torch.arange(5)[None] for tower in ("text_model", "vision_model")}
    save_file(state | numbers, folder / "model.safetensors", {"format": "pt"})
    clip(folder)
    assert not [warning for warning in recwarn if "not read" in str(warning.message)]


def test_the_pickled_weights_of_a_folder_of_transformers(folder):
    folder, state = folder
    torch.save(state, folder / "pytorch_model.bin")
    found = clip(folder).state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())


def test_code_in_the_pickled_weights_of_a_folder_of_transformers_is_not_run(folder):
    folder, state = folder
    torch.save(state | {"config": Code()}, folder / "pytorch_model.bin")
    with pytest.raises(
        ValueError, match=r"the CLIPModel in '.*' cannot be read as tensors alone .*; download it again"
    ):
        clip(folder)


def test_damaged_weights_of_a_folder_of_transformers(folder):
    folder, _ = folder
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match=r"cannot be read as tensors alone \(it is damaged"):
        clip(folder)
