"""Exports of a VideoCrafter: a LoRA for peft, or all weights in its authors' layout."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from rlr.models import Architecture, Frozen, FullWeights, Guidance, LoRA, VideoCrafter
from rlr.models.export import Card, DiffusersLoRA, Merged, OfficialVideoCrafter, PeftAdapter
from rlr.models.videocrafter.buffers import write_buffers
from rlr.models.videocrafter.checkpoint import export_official
from rlr.models.videocrafter.network import build_unet, call
from tests.models.random_vc import small
from tests.models.vectors import write_checkpoint


def estimate(model: VideoCrafter, prompt: str = "a red circle") -> torch.Tensor:
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.denoise(x, 500, model.encode([prompt]))


def shift(model: VideoCrafter, scale: float = 0.2) -> None:
    generator = torch.Generator().manual_seed(11)
    for weight in model.trainable.values():
        weight.data += scale * torch.randn(weight.shape, generator=generator)


def test_there_and_back_is_the_same_to_the_bit(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path)
    model = VideoCrafter(str(folder), trainable=Frozen())
    OfficialVideoCrafter().save(model, tmp_path / "again")
    first, second = (
        torch.load(path / "model.ckpt", weights_only=True)["state_dict"] for path in (folder, tmp_path / "again")
    )
    assert first.keys() == second.keys()
    different = [key for key in first if not torch.equal(first[key].float(), second[key])]
    # the tables are computed anew, in the last digit maybe otherwise
    assert set(different) <= set(write_buffers(model.architecture))
    assert Architecture.read(tmp_path / "again" / "config.json") == model.architecture


def test_an_exported_adapter_is_one_of_peft(random_vc: Path, tmp_path: Path) -> None:
    model = VideoCrafter(str(random_vc), trainable=LoRA(rank=2, alpha=3.0, pattern="temp_attentions"))
    base = estimate(model)
    shift(model)
    PeftAdapter().write(Guidance(model, 2.0), tmp_path / "adapter")
    unet = build_unet(model.architecture.unet)
    unet.load_state_dict(VideoCrafter(str(random_vc), trainable=Frozen()).unet.state_dict())
    PeftModel.from_pretrained(unet, str(tmp_path / "adapter"))
    x = torch.randn(1, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    condition = model.encode(["a red circle"])
    with torch.no_grad():
        inputs = (torch.tensor([500]), condition.tensors["text"], condition.tensors["fps"])
        torch.testing.assert_close(call(unet.eval(), x, *inputs), call(model.unet, x, *inputs))
    assert (estimate(model) - base).abs().max() > 0.01


@pytest.mark.parametrize("trainable", [LoRA(rank=2), FullWeights()], ids=["lora", "full"])
def test_a_model_written_whole_computes_what_it_did(
    random_vc: Path, tmp_path: Path, trainable: LoRA | FullWeights
) -> None:
    model = VideoCrafter(str(random_vc), trainable=trainable)
    base = estimate(model)
    shift(model, 0.05)
    trained = estimate(model)
    files = OfficialVideoCrafter().write(model, tmp_path / "whole", Card())
    assert [file.name for file in files] == ["README.md", "config.json", "merges.txt.gz", "model.ckpt"]
    assert files[0].read_text().startswith("---\npipeline_tag: text-to-video\ntags: [rlr]\n---\n")
    again = VideoCrafter(str(tmp_path / "whole"), trainable=Frozen())
    torch.testing.assert_close(estimate(again), trained, rtol=1e-4, atol=1e-4)
    assert (trained - base).abs().max() > 0.01
    assert torch.equal(estimate(model), trained)


def test_writing_is_all_or_nothing(random_vc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = VideoCrafter(str(random_vc), trainable=LoRA(rank=2))
    shift(model)

    def fail(state: object, path: Path) -> None:
        Path(path).write_bytes(b"half of it")
        raise OSError("no space left")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space left"):
        OfficialVideoCrafter().write(model, tmp_path / "whole")
    assert list(tmp_path.iterdir()) == []


def test_a_format_of_other_models_is_refused(random_vc: Path, tmp_path: Path) -> None:
    model = VideoCrafter(str(random_vc))
    for exporter in (DiffusersLoRA(), Merged()):
        with pytest.raises(ValueError, match="diffusers has no pipeline for VideoCrafter; export with PeftAdapter"):
            exporter.write(model, tmp_path / "other")


def test_half_of_the_digits_are_written_and_the_tables_whole(random_vc: Path) -> None:
    state = load_file(random_vc / "model.safetensors")
    tables = write_buffers(small())
    assert {name for name, weight in state.items() if weight.dtype == torch.float32} == set(tables)
    assert all(weight.dtype in (torch.float16, torch.float32) for weight in state.values())
    assert all(torch.equal(state[name], table) for name, table in tables.items())


def test_exporting_needs_no_model(tmp_path: Path) -> None:
    architecture = small()
    parts = [make() for make in architecture.makers.values()]
    export_official(tmp_path, *parts, architecture, dtype=torch.float32)
    state = load_file(tmp_path / "model.safetensors")
    assert torch.equal(state["model.diffusion_model.input_blocks.0.0.weight"], parts[0].conv_in.weight)
