"""The LoRA of a run as files: written with every checkpoint, readable by diffusers, and never half."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file

from rlr.callbacks import LoRAFolder
from rlr.modules import ImageAlignment
from tests.modules.toy import align

FILE = "pytorch_lora_weights.safetensors"
TRAINER = SimpleNamespace(is_global_zero=True)


@pytest.fixture(scope="module")
def module() -> ImageAlignment:
    from rlr import DDIM, FirstOrder
    from rlr.toy.models.tiny import Tiny
    from rlr.toy.rewards import TinyPickScore

    return ImageAlignment(Tiny(), DDIM(2), TinyPickScore(), FirstOrder())


def change(module: ImageAlignment, size: float) -> None:
    for name, weight in module.chain.model.trainable.items():
        if "lora_B" in name:
            weight.data.fill_(size)


def save(module: ImageAlignment, folder: Path) -> None:
    LoRAFolder(folder).on_write(TRAINER, module)  # type: ignore[arg-type]


def test_is_written_with_a_checkpoint_and_read_by_diffusers(module, tmp_path) -> None:
    change(module, 0.0)
    save(module, tmp_path)
    assert not (tmp_path / "lora").exists()
    for size in (0.1, 0.2):
        change(module, size)
        save(module, tmp_path)
        weights = load_file(tmp_path / "lora" / FILE)
        up = [weight for name, weight in weights.items() if "lora.up" in name or "lora_B" in name]
        assert up
        assert all(torch.equal(weight, torch.full_like(weight, size)) for weight in up)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lora"]
    config, _ = StableDiffusionPipeline.lora_state_dict(tmp_path / "lora")
    assert len(config) == len(weights)


def test_a_failed_write_keeps_the_old_folder_and_the_run(module, tmp_path, monkeypatch) -> None:
    change(module, 0.1)
    save(module, tmp_path)
    before = (tmp_path / "lora" / FILE).read_bytes()

    def full(self: object, *arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rlr.models.export.diffusers_lora.DiffusersLoRA.save", full)
    change(module, 0.3)
    with pytest.warns(UserWarning, match="lora was not written: no space left on device"):
        save(module, tmp_path)
    assert (tmp_path / "lora" / FILE).read_bytes() == before


def test_a_model_without_a_lora_has_no_folder(tmp_path) -> None:
    save(align(), tmp_path)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
