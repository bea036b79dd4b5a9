"""Alignment from Python: the pipeline, the function, the result."""

import inspect
import warnings
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusion3Pipeline, StableDiffusionPipeline
from PIL import Image

from rlr import DDIM, Brightness, FirstOrder, FrameReward, LoRA, Prompts, StableDiffusion, align
from rlr.api import METHODS
from rlr.api.alignment import FAMILIES
from rlr.api.methods import method_of
from rlr.cli import main
from rlr.estimators.pathwise import pathwise
from rlr.modules.sampling import sample
from rlr.records.record import Record
from rlr.records.run_page import comparisons

PROMPTS = ["a red circle", "a blue square", "two circles"]


def redness(images, prompts):
    return images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))


@pytest.fixture
def pipe(random_sd):
    return StableDiffusionPipeline.from_pretrained(random_sd())


@pytest.fixture(scope="module")
def result(random_sd):
    pipe = StableDiffusionPipeline.from_pretrained(random_sd())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return align(pipe, redness, PROMPTS, "first_order", 8, sampler=DDIM(4), accumulate=1, lr=0.03, guidance=2.0)


def test_the_reward_of_new_samples_rises(result):
    assert [row["update"] for row in result.history] == list(range(1, 9))
    after, before = (redness(result.pixels(PROMPTS, seed=5, base=base), PROMPTS) for base in (False, True))
    assert (after > before).all()
    assert result.history[-1]["reward/mean"] > result.history[0]["reward/mean"]


def test_images_of_one_prompt_and_of_several(result):
    one, several = result.sample("a red circle", seed=3), result.sample(PROMPTS, seed=3)
    assert isinstance(one, Image.Image)
    assert [image.size for image in several] == [(32, 32)] * 3
    assert one.tobytes() == several[0].tobytes()
    assert one.tobytes() != result.sample("a red circle", seed=4).tobytes()
    assert one.tobytes() != result.sample("a red circle", seed=3, base=True).tobytes()


def test_the_pipeline_itself_makes_the_aligned_images(result, random_sd, tmp_path):
    result.save_lora(tmp_path / "lora")
    again = StableDiffusionPipeline.from_pretrained(random_sd())
    again.load_lora_weights(tmp_path / "lora")
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    images = []
    for pipe in (result.pipe, again, StableDiffusionPipeline.from_pretrained(random_sd())):
        pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        images.append(pipe("a red circle", latents=noise, num_inference_steps=4, output_type="pt").images)
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=1e-4)
    assert (images[0] - images[2]).abs().max() > 1e-3
    text = (tmp_path / "lora" / "README.md").read_text()
    assert "aligned with redness" in text
    assert "| estimator | FirstOrder |" in text
    with pytest.raises(ValueError, match="to: expected one of diffusers"):
        result.export(tmp_path / "x", to="nothing")


def test_the_weights_are_those_of_the_command_line(random_sd, pipe, tmp_path):
    config = tmp_path / "same.yaml"
    config.write_text(f"""
model:
  class_path: ImageAlignment
  init_args:
    model:
      class_path: Guidance
      init_args: {{model: {{class_path: StableDiffusion, init_args: {{path: {random_sd()}}}}}, scale: 5.0}}
    sampler: {{class_path: DDIM, init_args: {{steps: 4}}}}
    reward: Brightness
    estimator: FirstOrder
    optimization: {{lr: 0.01, clip_norm: 1.0, accumulate: 2}}
data: {{class_path: Prompts, init_args: {{train: [a red circle, a blue square, two circles], batch_size: 2}}}}
trainer: {{accelerator: cpu, max_epochs: -1, max_steps: 2, enable_progress_bar: false, default_root_dir: {tmp_path / "out"}}}
""")
    module = main(["fit", f"--config={config}"]).model
    options = {"updates": 2, "batch_size": 2, "accumulate": 2, "lr": 0.01, "sampler": DDIM(4)}
    found = align(pipe, Brightness(), PROMPTS, "first_order", **options)
    expected, weights = module.chain.model.trainable, found.chain.model.trainable
    assert expected.keys() == weights.keys()
    assert all(torch.equal(expected[name], weights[name]) for name in expected)
    assert torch.equal(sample(module.chain, ["a"], [1]), sample(found.chain, ["a"], [1]))


def test_the_page_of_a_run_without_a_folder(result, tmp_path):
    with pytest.raises(ValueError, match=r'page: expected the folder of a run, .* such as page\("runs/mine"\)'):
        result.page()
    page = result.page(tmp_path / "mine")
    assert page == tmp_path / "mine" / "index.html"
    record = Record(page.parent)
    assert record.updates == 8
    assert list(record.series("reward/mean").values) == [row["reward/mean"] for row in result.history]
    (sheet,) = record.sheets
    assert [card["prompt"] for card in sheet.cards] == PROMPTS
    # the samples are those of `sample`, and so are their rewards
    for k, card in enumerate(sheet.cards):
        for name, base in (("aligned", False), ("base", True)):
            # one level for the order of a batch's sums
            expected = _image(result.sample(PROMPTS, seed=0, base=base)[k])
            torch.testing.assert_close(_image(sheet.file(card, name)), expected, rtol=0, atol=1)
    scores = {card["prompt"]: card["scores"]["aligned"]["redness"] for card in sheet.cards}
    assert list(scores.values()) == pytest.approx(redness(result.pixels(PROMPTS, seed=0), PROMPTS).tolist(), abs=1e-5)
    (compared,) = [found for _, name, _, found in comparisons(record) if name == "training prompts"]
    assert compared.difference > 0
    text = page.read_text()
    assert "FirstOrder" in text
    assert "<img" in text
    # a second call finds the files, and makes the same page
    assert result.page(tmp_path / "mine").read_text() == text


def test_the_page_of_a_run_with_a_folder(pipe, result, tmp_path):
    options = {"updates": 1, "sampler": DDIM(4), "accumulate": 1, "batch_size": 2}
    found = align(pipe, redness, PROMPTS, "first_order", folder=tmp_path / "run", **options)
    assert found.page() == tmp_path / "run" / "index.html"
    assert Record(tmp_path / "run").updates == 1
    with pytest.raises(ValueError, match=r"page: expected a folder without a run, found .*last.ckpt"):
        result.page(tmp_path / "run")


def _image(source):
    image = source if isinstance(source, Image.Image) else Image.open(source)
    return torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8).int()


def test_a_model_a_data_set_and_an_estimator_are_taken_as_they_are(random_sd, tmp_path):
    model = StableDiffusion(str(random_sd()), LoRA(2))
    data = Prompts(train=PROMPTS, batch_size=3)
    estimator = FirstOrder(2)
    found = align(
        model, Brightness(), data, estimator, 2, accumulate=1, sampler=DDIM(4), guidance=2.0, folder=tmp_path / "f"
    )
    assert found.pipe is None
    assert found.chain.model.model is model
    assert found.card.settings["batch"] == "3 × 1"
    assert sorted(file.name for file in (tmp_path / "f").iterdir()) == ["last.ckpt", "metrics.csv"]


def test_nothing_is_written_or_printed_without_a_folder(pipe, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    capfd.readouterr()
    align(
        pipe, lambda images, prompts: images.numpy().mean((1, 2, 3)), PROMPTS, updates=1, accumulate=1, sampler=DDIM(6)
    )
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["qwen", "zimage", "wan_experts", "cogvideox", "ltx", "hunyuan15"])
def test_the_pipeline_of_a_transformer_makes_the_aligned_samples(member, name, monkeypatch):
    found = member(name)
    parts = list(found.base.networks())
    pipe, size = found.copied(*parts), found.family.sizes[0]
    known = FAMILIES[type(pipe)]
    # the default size is that of the published model
    monkeypatch.setitem(FAMILIES, type(pipe), replace(known, model=partial(known.model, **size)))
    before, noise = found.ours(1.0, 0.0, 2)
    reward = FrameReward(Brightness()) if found.family.is_video else Brightness()
    with warnings.catch_warnings(action="ignore"):
        result = align(
            pipe, reward, PROMPTS[:2], "alignprop", 2, 2, accumulate=1, lr=0.1, sampler=found.family.noisy(2)
        )
    assert len(result.history) == 2
    assert isinstance(result.chain.model, known.guided)
    after = found.theirs(noise, 1.0, 0.0, 2, size, pipe)
    assert (after - before).abs().max() > 1e-3
    assert all(getattr(pipe, part) is network for part, network in result.chain.model.networks().items())


def test_methods_by_name(pipe):
    kinds = {name: type(method.estimator(True)).__name__ for name, method in METHODS.items()}
    assert kinds["look_ahead"] == kinds["half_order"] == "HalfOrderRLR"
    assert len(set(kinds.values())) == len(kinds) - 1
    for name in ("look_ahead", "half_order"):
        assert type(METHODS[name].estimator(False)).__name__ == "HalfOrder"
        assert not METHODS[name].estimator(False).differentiable
    with pytest.raises(
        ValueError, match=r"method: expected one of look_ahead, half_order, rlr, .*, or an Estimator, got 'half-order'"
    ):
        method_of("half-order")


def test_the_default_method_is_that_of_the_shipped_configs():
    """``tests/experiments/cost/test_measure.py`` compares ``pathwise`` with the file."""
    assert inspect.signature(align).parameters["method"].default == "look_ahead"
    assert METHODS["look_ahead"].make is pathwise


def test_mistakes(pipe, random_sd3):
    with pytest.raises(
        ValueError, match=r"align: expected one of StableDiffusionPipeline, StableDiffusion3Pipeline, .* got a str"
    ):
        align("CompVis/stable-diffusion-v1-4", redness, PROMPTS)
    with pytest.raises(ValueError, match="align: expected training prompts, got none"):
        align(pipe, redness, [])
    black_box = lambda images, prompts: [0.5] * len(prompts)  # noqa: E731
    other = StableDiffusion3Pipeline.from_pretrained(random_sd3())
    with pytest.raises(
        ValueError, match="FirstOrder as configured backpropagates the reward, and FunctionReward has no"
    ):
        align(other, black_box, PROMPTS, "first_order", updates=1)
