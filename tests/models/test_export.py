"""Exports of a Stable Diffusion, read by plain diffusers and peft."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import torch
import yaml
from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from huggingface_hub.errors import HfHubHTTPError
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor

from rlr.chain import Chain
from rlr.models import (
    Frozen,
    FullWeights,
    Guidance,
    LoRA,
    OnCPU,
    OnDemand,
    StableDiffusion,
    StableDiffusion3,
    TextPlacement,
    Trainable,
)
from rlr.models.adapters import merged
from rlr.models.export import (
    FORMATS,
    Card,
    ComfyUI,
    DiffusersLoRA,
    Exporter,
    Kohya,
    Merged,
    OfficialVideoCrafter,
    PeftAdapter,
    SingleFile,
    exporter_of,
    hub,
    single_file,
)
from rlr.models.latent import LatentDiffusion
from rlr.samplers import DDIM
from tests.modules.toy import AffineModel

Folder = Callable[..., Path]
PROMPTS = ["a red circle", "two blue squares"]


def trained(folder: Path, trainable: Trainable, scale: float = 0.2) -> StableDiffusion:
    model, generator = StableDiffusion(str(folder), trainable), torch.Generator().manual_seed(11)
    for weight in model.trainable.values():
        weight.data += scale * torch.randn(weight.shape, generator=generator)
    return model


def by_pipeline(pipeline: StableDiffusionPipeline, noise: Tensor) -> Tensor:
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
    pipeline.set_progress_bar_config(disable=True)
    options = {"num_inference_steps": 6, "guidance_scale": 3.0, "output_type": "pt"}
    return pipeline(PROMPTS, latents=noise, **options).images


def images(model: StableDiffusion) -> tuple[Tensor, Tensor]:
    chain = Chain(Guidance(model, 3.0), DDIM(6, eta=0.0))
    noises = chain.draw([1, 2])
    return model.decode(chain.sample(chain.encode(PROMPTS), noises).states[0]), noises[-1]


def lora_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder)
    return pipeline


def peft_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    PeftModel.from_pretrained(pipeline.unet, str(folder))
    return pipeline


def merged_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(folder)


def named_lora_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    pipeline.load_lora_weights(folder, weight_name="lora.safetensors")
    return pipeline


def single_file_pipeline(base: Path, folder: Path) -> StableDiffusionPipeline:
    file, config = folder / "model.safetensors", folder / "config"
    options = {"safety_checker": None, "feature_extractor": None, "local_files_only": True}
    return StableDiffusionPipeline.from_single_file(str(file), config=str(config), **options)


EVERYWHERE = ("to_q", "to_out.0", "ff.net.0.proj", "net.2", "time_emb_proj", "linear_1")


@pytest.mark.parametrize(
    ("exporter", "load", "trainable"),
    [
        (DiffusersLoRA(), lora_pipeline, LoRA(2)),
        (DiffusersLoRA(), lora_pipeline, LoRA(2, alpha=3.0)),
        (DiffusersLoRA(), lora_pipeline, LoRA(2, alpha=3.0, pattern=r"down.*attn2|mid_block")),
        (PeftAdapter(), peft_pipeline, LoRA(2, alpha=3.0, pattern=r"down.*attn2|mid_block")),
        (Merged(), merged_pipeline, LoRA(2, alpha=3.0)),
        (Merged(), merged_pipeline, FullWeights("attn2")),
        (Kohya(), named_lora_pipeline, LoRA(2, alpha=3.0)),
        (Kohya(), named_lora_pipeline, LoRA(2, alpha=0.5, targets=EVERYWHERE)),
        (ComfyUI(), named_lora_pipeline, LoRA(2, alpha=3.0)),
        (ComfyUI(), named_lora_pipeline, LoRA(2, alpha=0.5, targets=EVERYWHERE)),
        (SingleFile(), single_file_pipeline, LoRA(2, alpha=3.0)),
        (SingleFile(), single_file_pipeline, FullWeights("attn2")),
    ],
)
def test_an_export_makes_the_same_images_in_diffusers(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, load: Any, trainable: Trainable
) -> None:
    model = trained(random_sd(), trainable)
    files = exporter.write(Guidance(model, 3.0), tmp_path / "out")
    expected, noise = images(model)
    assert (by_pipeline(StableDiffusionPipeline.from_pretrained(random_sd()), noise) - expected).abs().max() > 0.05
    torch.testing.assert_close(by_pipeline(load(random_sd(), tmp_path / "out"), noise), expected, rtol=0, atol=1e-4)
    assert files
    assert all(file.is_file() for file in files)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_merged_unet_has_the_names_of_diffusers(random_sd: Folder, tmp_path: Path) -> None:
    model = trained(random_sd(), FullWeights(), 0.01)
    Merged().write(model, tmp_path / "out")
    loaded = UNet2DConditionModel.from_pretrained(tmp_path / "out" / "unet").state_dict()
    assert loaded.keys() == model.unet.state_dict().keys()
    assert all(torch.equal(loaded[name], value) for name, value in model.unet.state_dict().items())


@pytest.mark.parametrize("exporter", [DiffusersLoRA(), PeftAdapter(), Merged()])
def test_weights_that_change_nothing_are_refused(random_sd: Folder, tmp_path: Path, exporter: Exporter) -> None:
    with pytest.raises(ValueError, match="the trained weights make the images of the base model"):
        exporter.write(StableDiffusion(str(random_sd()), LoRA()), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


class Forgetful(DiffusersLoRA):
    """Sabotage: every second layer is left out of the file."""

    def save(self, model: LatentDiffusion, folder: Path) -> None:
        weights = [weight for name, weight in model.unet.named_parameters() if ".lora_B." in name]
        kept = [weight.data for weight in weights]
        for weight in weights[::2]:
            weight.data = torch.zeros_like(weight)
        super().save(model, folder)
        for weight, data in zip(weights, kept, strict=True):
            weight.data = data


def test_an_export_that_makes_other_images_is_refused(random_sd: Folder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"makes other images than the model in memory .*nothing was written"):
        Forgetful().write(trained(random_sd(), LoRA(2)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_stay(random_sd: Folder, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="exists and is not empty; name a new folder"):
        DiffusersLoRA().write(trained(random_sd(), LoRA(2)), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("exporter", "trainable", "fact"),
    [
        (DiffusersLoRA(), FullWeights("attn2"), "DiffusersLoRA writes a LoRA, .* are FullWeights; use Merged"),
        (PeftAdapter(), Frozen(), "PeftAdapter writes a LoRA, .* are Frozen"),
        (OfficialVideoCrafter(), LoRA(2), "OfficialVideoCrafter writes a VideoCrafter, and the model is a StableDiff"),
    ],
)
def test_a_format_that_does_not_fit_is_refused(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, trainable: Trainable, fact: str
) -> None:
    with pytest.raises(ValueError, match=fact):
        exporter.write(StableDiffusion(str(random_sd()), trainable), tmp_path / "out")


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exports a LatentDiffusion, and the model is a AffineModel"):
        Merged().write(AffineModel(), tmp_path / "out")


@pytest.mark.parametrize("placement", [OnCPU, OnDemand])
@pytest.mark.parametrize("exporter", [DiffusersLoRA(), Merged()])
def test_an_export_does_not_depend_on_where_the_text_encoder_is(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, placement: type[TextPlacement]
) -> None:
    written = []
    for k, text in enumerate((None, placement())):
        model = StableDiffusion(str(random_sd()), LoRA(2), text=text)
        for weight in model.trainable.values():
            weight.data += 0.1
        files = exporter.write(model, tmp_path / str(k))
        written.append({file.relative_to(tmp_path / str(k)): file for file in files})
    assert written[0].keys() == written[1].keys()
    for name, file in written[0].items():
        if file.suffix == ".safetensors":
            one, other = load_file(file), load_file(written[1][name])
            assert one.keys() == other.keys()
            assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())


@pytest.mark.parametrize("dtype", ["float64", "bfloat16", "float16"])
def test_other_types_are_exported_and_compared(random_sd: Folder, tmp_path: Path, dtype: str) -> None:
    model = StableDiffusion(str(random_sd()), LoRA(2), dtype=dtype)
    for weight in model.trainable.values():
        weight.data += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    assert DiffusersLoRA().write(model, tmp_path / "lora")


def comfyui_names(unet: UNet2DConditionModel) -> dict[str, str]:
    """The names under which ComfyUI's key map finds the layers of a U-Net, with the layers' names in diffusers."""
    names = {}
    for name, module in unet.named_modules():
        if getattr(module, "weight", None) is not None:
            attention = name.replace(".to_", ".processor.to_").removesuffix(".0" if name.endswith(".to_out.0") else "")
            names |= {f"lora_unet_{name.replace('.', '_')}": name, attention: name, f"unet.{attention}": name}
    return names


def read_as_comfyui(file: Path, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """The change of each layer's weight as ComfyUI computes it from a file, all of whose tensors it must use."""
    state, changes = load_file(file), {}
    ends = {
        ".lora_up.weight": ".lora_down.weight",
        "_lora.up.weight": "_lora.down.weight",
        ".lora.up.weight": ".lora.down.weight",
    }
    for stem, layer in comfyui_names(unet).items():
        for up, down in ends.items():
            if stem + up in state:
                b, a = state.pop(stem + up), state.pop(stem + down)
                alpha = state.pop(f"{stem}.alpha", torch.tensor(float(len(a))))
                changes[layer] = alpha.item() / len(a) * b @ a
    assert not state
    return changes


@pytest.mark.parametrize("exporter", [Kohya(), ComfyUI()], ids=["kohya", "comfyui"])
@pytest.mark.parametrize("trainable", [LoRA(2, alpha=3.0), LoRA(2, alpha=0.5, targets=EVERYWHERE)], ids=["few", "all"])
def test_comfyui_finds_every_layer_and_adds_the_same(
    random_sd: Folder, tmp_path: Path, exporter: Exporter, trainable: LoRA
) -> None:
    model = trained(random_sd(), trainable)
    exporter.write(model, tmp_path / "out")
    base = StableDiffusion(str(random_sd()), Frozen()).unet
    changes, after = read_as_comfyui(tmp_path / "out" / "lora.safetensors", base), merged(model.unet)
    before = base.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {f"{layer}.weight" for layer in changes}
    for layer, change in changes.items():
        expected = after[f"{layer}.weight"] - before[f"{layer}.weight"]
        torch.testing.assert_close(change.view_as(expected), expected, rtol=0, atol=1e-6)


def test_a_lora_of_a_transformer_is_read_by_diffusers(random_sd3: Folder, tmp_path: Path) -> None:
    model = StableDiffusion3(str(random_sd3()), LoRA(2, alpha=3.0))
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    ComfyUI().write(model, tmp_path / "out")
    names = load_file(tmp_path / "out" / "lora.safetensors")
    # the keys of the map of Stable Diffusion 3, and no alpha beside them
    assert all(
        re.fullmatch(r"transformer\.transformer_blocks\.\d+\.attn\.\w+(\.0)?\.lora_[AB]\.weight", n) for n in names
    )
    with pytest.raises(
        ValueError, match=r"Kohya writes a Stable Diffusion 1\.x or 2\.x, and the model is a StableDiffusion3"
    ):
        Kohya().write(model, tmp_path / "other")


def test_one_file_has_the_names_of_the_authors_also_for_the_text_encoder_of_2(
    random_sd: Folder, tmp_path: Path
) -> None:
    folder = shutil.copytree(random_sd(), tmp_path / "sd2")
    config = folder / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_act": "gelu"}))
    for path, known in (
        (random_sd(), "cond_stage_model.transformer.text_model.encoder.layers.1.self_attn.q_proj.weight"),
        (folder, "cond_stage_model.model.transformer.resblocks.1.attn.in_proj_weight"),
    ):
        SingleFile().write(trained(path, LoRA(2)), tmp_path / f"{path.name}-out")
        names = set(load_file(tmp_path / f"{path.name}-out" / "model.safetensors"))
        assert known in names
        assert "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight" in names
        assert "model.diffusion_model.input_blocks.2.0.op.weight" in names
        assert "first_stage_model.decoder.mid.attn_1.q.weight" in names


def test_a_part_that_is_read_otherwise_is_refused(random_sd: Folder, tmp_path: Path, monkeypatch: Any) -> None:
    right = single_file.original_state

    def wrong(*parts: Any) -> dict[str, Tensor]:
        state = right(*parts)
        return state | {name: 2 * w for name, w in state.items() if name == "first_stage_model.decoder.conv_in.weight"}

    monkeypatch.setattr(single_file, "original_state", wrong)
    with pytest.raises(ValueError, match=r"the weight decoder.conv_in.weight of vae is another one"):
        SingleFile().write(trained(random_sd(), LoRA(2)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_model_card_states_reward_numbers_settings_and_licenses(random_sd: Folder, tmp_path: Path) -> None:
    card = Card("ImageReward", {"lr": 1e-3, "estimator": "RLR | 3"}, "| a | b |")
    for name in ("diffusers", "peft", "kohya", "comfyui", "merged", "safetensors-single"):
        files = exporter_of(name).write(trained(random_sd(), LoRA(2)), tmp_path / name, card)
        assert tmp_path / name / "README.md" in files
        text = (tmp_path / name / "README.md").read_text()
        assert "| a | b |" in text
        assert "| estimator | RLR \\| 3 |" in text
        assert "Reward ImageReward: see https://github.com/THUDM/ImageReward" in text
        assert str(tmp_path) not in text
        header = yaml.safe_load(text.split("---\n")[1])
        assert header["library_name"] == ("peft" if name == "peft" else "diffusers")
        assert header["pipeline_tag"] == "text-to-image"
        assert ("lora" in header["tags"]) is (name in ("diffusers", "peft", "kohya", "comfyui"))
        compile(text.partition("```python\n")[2].partition("```")[0], name, "exec")
    known = card.text("CompVis/stable-diffusion-v1-4", "", "")
    assert known.startswith("---\nbase_model: CompVis/stable-diffusion-v1-4\nlicense: creativeml-openrail-m\n")


def test_the_code_of_the_card_loads_the_folder(random_sd: Folder, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(random_sd(), tmp_path / "base")
    model = trained(tmp_path / "base", LoRA(2, alpha=3.0))
    expected, noise = images(model)
    for name in ("diffusers", "kohya", "comfyui", "merged", "safetensors-single"):
        exporter_of(name).write(model, tmp_path / name, Card())
        code = (tmp_path / name / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        # what a machine without an accelerator can run
        lines = code.replace("torch.float16", "torch.float32").replace('.to("cuda")', "").splitlines()
        found: dict[str, Any] = {}
        exec("\n".join(line for line in lines if ".save(" not in line), found)
        torch.testing.assert_close(by_pipeline(found["pipe"], noise), expected, rtol=0, atol=1e-4)


def test_short_names() -> None:
    assert {type(exporter_of(name)) for name in FORMATS} == set(FORMATS.values())
    with pytest.raises(ValueError, match=r"to: expected one of diffusers, peft, kohya, .*, got 'a1111'"):
        exporter_of("a1111")


class FakeHub:
    """Records what is asked of the hub."""

    calls: ClassVar[list[tuple[str, dict[str, object]]]] = []

    def create_repo(self, name: str, **options: object) -> str:
        self.calls.append((name, options))
        return f"https://hub/{name}"

    def upload_folder(self, **options: object) -> None:
        self.calls.append(("upload", options))


def test_a_folder_is_uploaded(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(hub, "HfApi", FakeHub)
    assert hub.push(tmp_path, "me/my-lora") == "https://hub/me/my-lora"
    (name, created), (_, uploaded) = FakeHub.calls
    assert (name, created["private"], uploaded["repo_id"], uploaded["folder_path"]) == (
        "me/my-lora",
        True,
        "me/my-lora",
        tmp_path,
    )
    with pytest.raises(
        ValueError, match="push: expected the name of a repository on the hub, such as me/my-lora, got 'm'"
    ):
        hub.push(tmp_path, "m")


def test_a_refusal_of_the_hub_says_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    def refuse(self: Any, name: str, **options: object) -> None:
        raise HfHubHTTPError("no", response=httpx.Response(401, request=httpx.Request("POST", "https://hub")))

    monkeypatch.setattr(FakeHub, "create_repo", refuse)
    monkeypatch.setattr(hub, "HfApi", FakeHub)
    with pytest.raises(
        OSError, match=r"push: the hub answered 401 for me/x; log in with `hf auth login` .* export is in"
    ):
        hub.push(tmp_path, "me/x")
