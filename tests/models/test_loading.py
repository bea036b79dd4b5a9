import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants as hub
import huggingface_hub.utils._http as http
import pytest
import torch
from safetensors.torch import load_file

from rlr.models import Frozen, Size, StableDiffusion

Folder = Callable[..., Path]
PARTS = ["unet", "vae", "text_encoder", "tokenizer", "scheduler"]
ABSENT = "nobody/no-such-model"


@pytest.fixture
def copied(random_sd: Folder, tmp_path: Path) -> Path:
    return shutil.copytree(random_sd(), tmp_path / "sd")


def pickled(folder: Path) -> Path:
    """Turns the U-Net's safetensors into a ``.bin``."""
    source, target = (folder / "unet" / f"diffusion_pytorch_model.{end}" for end in ("safetensors", "bin"))
    torch.save(load_file(source), target)
    source.unlink()
    return target


def configure(folder: Path, **settings: object) -> str:
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))
    return str(folder)


@pytest.mark.parametrize("path", [ABSENT, "/no/such/folder"])
def test_without_network_one_sentence_names_the_remedy(path: str) -> None:
    """The tests run with HF_HUB_OFFLINE."""
    assert hub.HF_HUB_OFFLINE
    with pytest.raises(
        ValueError,
        match=f"'{path}' is neither a folder.*without a network connection, set path to a folder that contains",
    ):
        StableDiffusion(path)


def test_an_unreachable_host_gives_the_same_sentence_at_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "ENDPOINT", "http://no-such-host.invalid")
    monkeypatch.setattr(
        hub, "HUGGINGFACE_CO_URL_TEMPLATE", "http://no-such-host.invalid/{repo_id}/{revision}/{filename}"
    )
    waits: list[float] = []
    monkeypatch.setattr(http.time, "sleep", waits.append)
    cause = r"\(http://no-such-host.invalid does not answer\)"
    with pytest.raises(
        ValueError, match=f"'{ABSENT}' is neither a folder.* {cause}; without a network connection, set path"
    ):
        StableDiffusion(ABSENT)
    assert waits == []
    assert not caplog.records
    assert hub.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(copied: Path, part: str) -> None:
    shutil.rmtree(copied / part)
    with pytest.raises(ValueError, match=f"has no readable {part}/ .*set path to a Stable Diffusion"):
        StableDiffusion(str(copied))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights_are_named(copied: Path, part: str) -> None:
    next((copied / part).glob("*.safetensors")).unlink()
    with pytest.raises(ValueError, match=f"has no readable {part}/"):
        StableDiffusion(str(copied))


def test_a_tokenizer_of_two_plain_files_is_read(random_sd: Folder, copied: Path) -> None:
    """The layout of the published folders."""
    model = StableDiffusion(str(copied), Frozen())
    parts = json.loads((copied / "tokenizer" / "tokenizer.json").read_text())["model"]
    (copied / "tokenizer" / "tokenizer.json").unlink()
    (copied / "tokenizer" / "vocab.json").write_text(json.dumps(parts["vocab"]))
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in parts["merges"]]
    (copied / "tokenizer" / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    prompts = ["a red circle, two blue squares", ""]
    assert torch.equal(
        StableDiffusion(str(copied), Frozen()).text(prompts).tensors["text"], model.text(prompts).tensors["text"]
    )


def test_a_bin_file_is_read_where_there_is_no_safetensors(copied: Path) -> None:
    model = StableDiffusion(str(copied), Frozen())
    pickled(copied)
    other = StableDiffusion(str(copied), Frozen())
    condition = model.encode(["a red circle"])
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    # to the bit, although the two readers lay the weights out differently
    assert torch.equal(other.denoise(x, 400, condition), model.denoise(x, 400, condition))


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_a_bin_file_runs_nothing(copied: Path, tmp_path: Path) -> None:
    file = pickled(copied)
    torch.save({"conv_in.weight": Payload(tmp_path / "ran")}, file)
    with pytest.raises(ValueError, match="has no readable unet/"):
        StableDiffusion(str(copied))
    assert not (tmp_path / "ran").exists()
    # and it would have, without the protection
    pickle.loads(pickle.dumps(Payload(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


def test_a_bin_file_of_the_text_encoder_runs_nothing_and_nobody_is_stated_to_run_it(
    copied: Path, tmp_path: Path
) -> None:
    folder = copied / "text_encoder"
    (folder / "model.safetensors").unlink()
    torch.save({"a": Payload(tmp_path / "ran")}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"no readable text_encoder/ \(its file holds Python objects") as stated:
        StableDiffusion(str(copied))
    assert "weights_only" not in str(stated.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("setting", "value"), [("prediction_type", "flow"), ("timestep_spacing", "random"), ("beta_schedule", "sigmoid")]
)
def test_an_unknown_setting_of_the_scheduler_is_named(copied: Path, setting: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"scheduler_config.json asks for .*{value}.* not known here"):
        StableDiffusion(configure(copied, **{setting: value}))


def test_zero_terminal_signal_needs_another_prediction_than_noise(copied: Path) -> None:
    with pytest.raises(ValueError, match="unset it, or take a v_prediction model"):
        StableDiffusion(configure(copied, rescale_betas_zero_snr=True))
    assert StableDiffusion(configure(copied, prediction_type="v_prediction")).noise_schedule.levels(999) == (0, 1)


def test_a_variant_is_read(copied: Path) -> None:
    for part in ("unet", "vae", "text_encoder"):
        file = next((copied / part).glob("*.safetensors"))
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert StableDiffusion(str(copied), Frozen(), variant="fp16").latent_shape(Size(32, 32)) == (4, 8, 8)
