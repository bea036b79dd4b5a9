"""The published rule moves latents up the reward, by the gradient of the samples themselves, for every sample alone."""

import json
import warnings
from collections.abc import Sequence

import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor

from rlr.analysis.measure import peak_bytes
from rlr.cli import main
from rlr.data import PromptBatch, Prompts
from rlr.models import Frozen, StagedPrompt
from rlr.modules import DOODL
from rlr.modules.latents.doodl import norms
from rlr.rewards import AllFrames, FrameReward, RandomFrame
from rlr.toy.models import Tiny
from rlr.toy.rewards import TinyPickScore
from tests.modules.clips import Sparing
from tests.modules.toy import AffineModel, Hard, Level, align

WORDS = ["one", "two", "three"]
BATCH = PromptBatch(WORDS, [0, 1, 2])
RISING = {"steps": 20, "iterations": 12, "clip": 0.03, "scale": 10.0}


def doodl(kind: str = "float64", **changes: object) -> DOODL:
    settings = {"model": AffineModel(False, dtype=kind), "reward": Level(), "steps": 4, "iterations": 3, **changes}
    return DOODL(**settings)  # type: ignore[arg-type]


def latents(kind: torch.dtype = torch.float64, count: int = 3) -> Tensor:
    return torch.randn((count, 3, 2, 2), generator=torch.Generator().manual_seed(5), dtype=kind)


def by_autograd(module: DOODL, x: Tensor) -> Tensor:
    """¼ (∂_x + ∂_y) of the summed reward of both samples, recording everything."""
    pair = torch.stack([x, x]).requires_grad_()
    ends = module.edict.sample(pair, module.chain.encode(WORDS))
    score = sum(module.objective.of_frames()(end, WORDS).objective.sum() for end in ends)
    (gradient,) = torch.autograd.grad(score, pair)
    return gradient.sum(0) / 4


# ---------------------------------------------------------------- the rule


def test_the_gradient_is_that_of_autograd():
    module, x = doodl(), latents()
    gradient, rewards = module.gradient(x, WORDS)
    torch.testing.assert_close(gradient, by_autograd(module, x), rtol=1e-9, atol=1e-12)
    end = module.edict.sample(torch.stack([x, x]), module.chain.encode(WORDS))[0]
    torch.testing.assert_close(rewards, Level()(torch.sigmoid(end), WORDS))


def test_the_memory_of_a_gradient_does_not_grow_with_the_steps():
    """By more than a hundred bytes; the bound holds decoding and reward, too."""
    words, x = 64 * ["one"], torch.randn((64, 3, 2, 2), generator=torch.Generator().manual_seed(0))

    def peak(steps: int) -> int:
        module = doodl("float32", steps=steps, mixing=0.999)
        return peak_bytes(lambda: module.gradient(x, words), torch.device("cpu"))

    def recorded(steps: int) -> int:
        edict, pair = doodl("float32", steps=steps).edict, torch.stack([x, x]).requires_grad_()
        return peak_bytes(lambda: edict.sample(pair, edict.chain.encode(words)).sum().backward(), torch.device("cpu"))

    few, many = peak(20), peak(400)
    assert abs(many - few) < 100
    assert many < 24 * x.nbytes
    # and it would be seen
    assert recorded(20) > 2 * many


def test_a_way_back_to_another_latent_is_stated_once():
    x = latents(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        doodl("float32", steps=50).gradient(x, WORDS)
    module = doodl("float32", steps=50, mixing=0.8)
    with pytest.warns(UserWarning, match=r"ends 0\.\d+ times its norm beside .* mixing \(now 0\.8\) closer to 1"):
        module.gradient(x, WORDS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module.gradient(x, WORDS)


def test_latents_move_by_the_published_rule():
    """Two iterations, written out: clip, momentum, one noise for both chains, mean, norm."""
    module = doodl(iterations=2, scale=2.0, clip=3e-3, momentum=0.8, perturbation=1e-2)
    seeds, x = [7, 8, 9], latents()
    y, buffer = x.clone(), torch.zeros(3, 12, dtype=x.dtype)
    for k in range(2):
        gradient = (2 * by_autograd(module, y)).flatten(1)
        assert (gradient.abs() > 3e-3).any()
        assert (gradient.abs() < 3e-3).any()
        buffer = 0.8 * buffer + torch.where(gradient.abs() > 3e-3, 3e-3 * gradient.sign(), gradient)
        noise = module._noise(x, seeds, k).flatten(1)
        moved = y.flatten(1) + buffer + 1e-2 * noise
        y = (moved * x.flatten(1).norm(dim=1, keepdim=True) / moved.norm(dim=1, keepdim=True)).view_as(x)
    found, path = module.optimize(x, WORDS, seeds)
    torch.testing.assert_close(found, y, rtol=1e-9, atol=1e-12)
    assert len(path) == 2


def test_the_norm_of_every_latent_is_kept():
    x = latents() * torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64).view(3, 1, 1, 1)
    found, _ = doodl(clip=0.3, scale=100.0, perturbation=0.1).optimize(x, WORDS, [1, 2, 3])
    assert (found - x).abs().max() > 0.1
    torch.testing.assert_close(norms(found), norms(x))


def test_perturbations_are_each_sample_s_own_and_differ_by_iteration():
    module, x = doodl(), latents()
    noise = module._noise(x, [7, 8, 7], 0)
    assert torch.equal(noise[0], noise[2])
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise, module._noise(x, [7, 8, 7], 1))


def test_a_sample_does_not_depend_on_its_batch():
    module = doodl("float32", clip=0.1, scale=10.0)
    together = module.generate(BATCH)
    for i, word in enumerate(WORDS):
        alone = module.generate(PromptBatch([word], [i]))
        torch.testing.assert_close(alone.samples[0], together.samples[i], rtol=0, atol=1e-4)


def test_it_starts_from_the_noise_of_an_alignment():
    module = doodl("float32", iterations=0, steps=200, seed=3)
    aligned = align(model=AffineModel(False), sampler=module.chain.sampler, seed=3)
    one, two = module.generate(BATCH), aligned.generate(BATCH)
    assert one.seeds == two.seeds
    # the coupled chains approach DDIM's
    torch.testing.assert_close(one.samples, two.samples, rtol=0, atol=5e-3)


# ---------------------------------------------------------------- what comes of it


def test_the_reward_rises():
    prediction = doodl("float32", **RISING).generate(BATCH)
    for note, reward in zip(prediction.notes, prediction.rewards.tolist(), strict=True):
        assert note["reward_before"] == pytest.approx(note["reward_path"][0])
        assert reward > note["reward_path"][-1] > note["reward_before"] + 0.01
        assert len(note["reward_path"]) == 12


def test_one_of_which_less_is_better_falls():
    class Cost(Level):
        higher_is_better = False

    prediction = doodl("float32", reward=Cost(), **RISING).generate(BATCH)
    for note, reward in zip(prediction.notes, prediction.rewards.tolist(), strict=True):
        assert reward < note["reward_before"] - 0.01


def test_so_does_a_learned_reward_of_the_built_in_model():
    module = DOODL(Tiny(trainable=Frozen()), TinyPickScore(), steps=3, iterations=3, scale=10.0, clip=0.05)
    prediction = module.generate(PromptBatch(["a red circle", "two blue squares on a white background"], [0, 1]))
    gains = [reward - note["reward_before"] for note, reward in zip(prediction.notes, prediction.rewards, strict=True)]
    assert sum(gains) > 0
    assert prediction.samples.shape == (2, 3, 32, 32)


def test_no_weight_has_a_gradient_afterwards():
    module = doodl("float32", model=AffineModel())
    module.generate(BATCH)
    assert all(weight.grad is None for weight in module.parameters())


def test_stages_of_prompts_are_read_by_step():
    module = doodl("float32")

    def samples(*prompts: str) -> Tensor:
        return module.generate(PromptBatch(list(prompts), [0])).samples

    class Whole(Level):
        def forward(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
            assert prompts == ["one"]
            return super().forward(pixels, prompts)

    module.objective.reward = Whole()
    assert torch.equal(samples("one"), samples(StagedPrompt("one", ("one", "one"))))
    assert not torch.equal(samples("one"), samples(StagedPrompt("one", ("one", "two"))))


@pytest.mark.parametrize("choice", [AllFrames(), RandomFrame()], ids=lambda c: type(c).__name__)
def test_videos_go_by_the_same_code(choice):
    module = doodl(model=Sparing(), reward=FrameReward(Level(), choice), **RISING)
    prediction = module.generate(BATCH)
    assert (prediction.samples.shape[:3], prediction.fps) == ((3, 4, 3), 8.0)
    rewards = FrameReward(Level(), AllFrames())(prediction.samples, WORDS)
    assert torch.equal(prediction.rewards, rewards)
    assert all(reward > note["reward_before"] for reward, note in zip(rewards, prediction.notes, strict=True))
    assert torch.equal(module.generate(BATCH).samples, prediction.samples)


# ---------------------------------------------------------------- the trainer and the command line


@pytest.mark.parametrize("inference_mode", [False, True])
def test_it_works_in_every_mode_of_the_trainer(inference_mode):
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = Trainer(inference_mode=inference_mode, enable_model_summary=False, **silent)
    module, data = doodl("float32", **RISING), Prompts(predict=WORDS, test=WORDS, batch_size=3)
    (prediction,) = trainer.predict(module, datamodule=data)
    assert torch.equal(prediction.samples, module.generate(BATCH).samples)
    (metrics,) = trainer.test(module, datamodule=data, verbose=False)
    assert metrics["test/reward"] == pytest.approx(prediction.rewards.mean().item())
    assert metrics["test/reward"] > metrics["test/reward_before"]


CONFIG = """
model:
  class_path: DOODL
  init_args:
    model: {class_path: tests.modules.toy.AffineModel, init_args: {trained: false}}
    reward: tests.modules.toy.Level
    steps: 20
    iterations: 6
    clip: 0.03
    scale: 10.0
    seed: ${seed_everything}
seed_everything: 7
data: {class_path: Prompts, init_args: {predict: [four, five, six], batch_size: 2}}
trainer: {accelerator: cpu, enable_progress_bar: false, enable_model_summary: false}
"""


@pytest.fixture
def args(tmp_path) -> list[str]:
    (tmp_path / "config.yaml").write_text(CONFIG)
    return [f"--config={tmp_path / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path / 'out'}"]


def test_predict_writes_pictures_with_the_rewards_before_and_after(args, tmp_path):
    cli = main(["predict", *args])
    folder = tmp_path / "out" / "predictions"
    names = [f"0000{i}.{suffix}" for i in range(3) for suffix in ("json", "png")]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "origin.json"]
    expected = cli.model.generate(PromptBatch(["four", "five"], [0, 1]))
    story = json.loads((folder / "00001.json").read_text())
    assert (story["prompt"], story["seed"], story["checkpoint"]) == ("five", expected.seeds[1], None)
    assert story["reward"] == pytest.approx(expected.rewards[1].item())
    assert story["scores"] == {"Level": story["reward"]}
    assert story["reward"] > story["reward_before"] == pytest.approx(story["reward_path"][0])
    assert len(story["reward_path"]) == 6
    picture = torch.tensor(list(Image.open(folder / "00001.png").get_flattened_data())).T.view(3, 2, 2) / 255
    torch.testing.assert_close(picture, expected.samples[1], atol=0.5 / 255 + 1e-6, rtol=0)


def test_there_is_nothing_to_train_and_nothing_to_load(args, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RLR_TRACEBACK", raising=False)
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.6"}, tmp_path / "some.ckpt")
    for command in (["fit", *args, "--data.train=[one]"], ["predict", *args, f"--ckpt_path={tmp_path / 'some.ckpt'}"]):
        with pytest.raises(SystemExit):
            main(command)
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "training_step" in errors[0]
    assert "DOODL trains no weight, so it has no checkpoint to load" in errors[1]


# ---------------------------------------------------------------- refusals


class Broken(Level):
    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().forward(samples, prompts) / 0


def test_a_gradient_that_is_not_finite_is_stated():
    with pytest.raises(FloatingPointError, match="reward Broken in the latent is not finite in iteration 1 of 3"):
        doodl("float32", reward=Broken()).generate(BATCH)


@pytest.mark.parametrize(
    ("changes", "stated"),
    [
        ({"reward": Hard()}, "Hard has no gradient"),
        ({"model": Sparing()}, "the model makes videos; wrap the reward in FrameReward"),
        ({"iterations": -1}, "iterations >= 0"),
        ({"clip": 0.0}, "clip > 0"),
        ({"momentum": 1.0}, "momentum < 1"),
        ({"steps": 0}, "steps: expected at least 1"),
        ({"mixing": 0.0}, "mixing must lie"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, stated):
    with pytest.raises(ValueError, match=stated):
        doodl(**changes)
