"""Videos are aligned by the routine that aligns images, and only the frames that a reward asks for are decoded."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn

from rlr.chain import Chain
from rlr.data.stream import PromptBatch
from rlr.estimators import (
    DDPO,
    RLR,
    AlignProp,
    AllSteps,
    FirstOrder,
    HalfOrder,
    HalfOrderRLR,
    LookAhead,
    RoundStatistics,
    ZerothOrder,
)
from rlr.models import Guidance, Size
from rlr.modules import Alignment, ImageAlignment, VideoAlignment, memory
from rlr.modules.checks import check_training
from rlr.modules.memory import Offload
from rlr.objective import Objective
from rlr.rewards import (
    AllFrames,
    Brightness,
    Combine,
    EvenlySpaced,
    FrameChoice,
    FrameReward,
    RandomFrame,
)
from rlr.samplers import DDIM
from tests.modules.clips import FRAMES, SIDE, ClipModel, Sparing, align_clips
from tests.modules.toy import AffineModel, Hard, Level, align, prompts, run, weights

ESTIMATORS = {
    "truncated": lambda: FirstOrder(2),
    "full": lambda: FirstOrder(AllSteps()),
    "reinforce": lambda: HalfOrder(1),
    "controlled": lambda: HalfOrder(2, control=LookAhead()),
    "zeroth": lambda: ZerothOrder(2),
    "rlr": lambda: RLR(length=2),
    "half_order_rlr": lambda: HalfOrderRLR(length=2),
    "alignprop": lambda: AlignProp(),
    "ddpo": lambda: DDPO(1, statistics=RoundStatistics()),
}


def test_image_and_video_share_the_training_step():
    assert VideoAlignment.training_step is ImageAlignment.training_step is Alignment.training_step
    for kind in (ImageAlignment, VideoAlignment):
        assert {name for name in vars(kind) if not name.startswith("__")} == {"_check"}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimator_aligns_videos(name):
    module = align_clips(estimator=ESTIMATORS[name]())
    before = weights(module)
    trainer = run(module, prompts(4), 2)
    assert weights(module).isfinite().all()
    assert not torch.equal(weights(module), before)
    assert trainer.logged_metrics["reward/mean"].isfinite()


def test_training_raises_the_reward_of_whole_videos():
    batch = PromptBatch(["one", "six", "seven"], [0, 1, 2])
    module = align_clips(estimator=FirstOrder(2))
    before = module.generate(batch)
    run(module, prompts(), 30)
    assert module.generate(batch).rewards.mean() > before.rewards.mean() + 0.05
    assert before.samples.shape == (3, FRAMES, 3, 16, 16)
    assert before.fps == 8


def test_one_step_is_the_gradient_of_the_mean_reward():
    """Against autograd through the same chain, written out by hand, on every frame as an image."""
    module = align_clips(
        reward=FrameReward(Level(), AllFrames()),
        optimizer=lambda w: torch.optim.SGD(w, 1.0),
        estimator=FirstOrder(AllSteps()),
    )
    draws = []
    draw = module.chain.draw
    module.chain.draw = lambda seeds: draws.append(draw(seeds)) or draws[-1]
    before = weights(module)
    run(module, prompts(3, shuffle=False))
    moved = weights(module) - before

    twin = ClipModel().eval()
    chain, x = Chain(twin, DDIM(4, eta=1.0)), draws[0][4]
    condition = twin.encode(["zero", "one", "two"])
    for t in (4, 3, 2, 1):
        x = chain.transition(x, t, condition).sample(draws[0][t - 1])
    pixels = twin.decode(x)
    rewards = [Level()(pixels[:, frame], ["zero", "one", "two"]).mean() for frame in range(FRAMES)]
    (sum(rewards) / FRAMES).backward()
    expected = torch.cat([w.grad.flatten() for w in twin.trainable.values()])
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=1e-4)


def test_global_generators_are_not_touched():
    module, data = align_clips(), prompts()
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = module.generate(PromptBatch(["two"], [6])).rewards
    assert torch.equal(first, module.generate(PromptBatch(["two"], [6])).rewards)
    run(module, data, 2)
    assert torch.equal(state, torch.get_rng_state())


# ---------------------------------------------------------------- frames

TWO = Combine(
    {"a": FrameReward(Level(), EvenlySpaced(1)), "b": FrameReward(Brightness(), EvenlySpaced(2))},
    {"a": 1.0, "b": -0.5},
)
WHOLE = Combine({"a": FrameReward(Level(), EvenlySpaced(1)), "b": Brightness()}, {"a": 1.0, "b": 2.0})
CHOICES = {
    "one": (FrameReward(Level(), EvenlySpaced(1)), 1),
    "two": (FrameReward(Level(), EvenlySpaced(2)), 2),
    "all": (FrameReward(Level(), AllFrames()), 4),
    "random": (FrameReward(Level(), RandomFrame()), 1),
    "videos": (Brightness(), 4),
    # frames 1 and 3, and frame 2
    "combined": (TWO, 3),
    "combined with one of videos": (WHOLE, 4),
    "combined at random": (Combine({k: FrameReward(Level()) for k in "ab"}, {"a": 1.0, "b": 1.0}), 1),
    "combined within": (FrameReward(Combine({"a": Level(), "b": Brightness()}, {"a": 1.0, "b": 1.0})), 1),
}
WORDS_2 = ["one", "six"]


def scored(model, reward, x, seed=0):
    return Objective(model, reward).of_frames(seed)(x, WORDS_2)


def latents():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, 2, FRAMES, 2, 2, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("name", CHOICES)
def test_only_the_frames_that_are_asked_for_are_decoded(name):
    reward, count = CHOICES[name]
    model, x = Sparing(), latents()
    objective = Objective(model, reward).of_frames(5)
    scores = objective(x, WORDS_2).objective
    assert model.decoded == count
    (slope,) = torch.autograd.grad(scores.sum(), x)
    assert int((slope.abs().amax((0, 1, 3, 4)) > 0).sum()) == count
    objective(x, WORDS_2)
    assert model.decoded == 2 * count


@pytest.mark.parametrize("name", [name for name in CHOICES if "random" not in name and name != "combined within"])
def test_it_is_as_if_all_were_decoded_and_some_picked(name):
    reward, _ = CHOICES[name]
    x, y = latents(), latents()
    lean, full = scored(Sparing(), reward, x).values, reward(ClipModel().decode(y), WORDS_2)
    torch.testing.assert_close(lean, full, atol=1e-12, rtol=0)
    for one, other in zip(torch.autograd.grad(lean.sum(), x), torch.autograd.grad(full.sum(), y), strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_a_model_that_cannot_choose_decodes_all_and_scores_the_same():
    model, reward = ClipModel(), CHOICES["two"][0]
    scores = scored(model, reward, latents())
    assert model.decoded == FRAMES
    assert torch.equal(scores.values, scored(Sparing(), reward, latents()).values)


def test_a_combination_reports_its_parts():
    parts = scored(Sparing(), TWO, latents()).parts
    expected = TWO.score(ClipModel().decode(latents()), WORDS_2).parts
    assert parts.keys() == expected.keys() >= {"a", "b", "a/Level"}
    for name, scores in parts.items():
        torch.testing.assert_close(scores, expected[name], atol=1e-12, rtol=0)


def test_the_frames_of_one_objective_stay_and_seeds_vary_them():
    objective, x = Objective(Sparing(), FrameReward(Level())), latents()
    values = [tuple(objective.of_frames(seed)(x, WORDS_2).values.tolist()) for seed in range(40)]
    assert len(set(values)) == FRAMES
    one = objective.of_frames(0)
    assert torch.equal(one(x, WORDS_2).values, one(x, WORDS_2).values)


def test_guidance_passes_the_frames_on():
    inner = Sparing(dtype="float64")
    model = Guidance(inner, 1.0)
    assert (model.size.frames, model.size.fps) == (FRAMES, 8)
    assert Guidance(AffineModel(), 2.0, "zero").size.frames is None
    pixels = model.decode(latents(), [2, 0])
    assert inner.decoded == 2
    assert torch.equal(pixels, inner.decode(latents())[:, [2, 0]])


class First(FrameChoice):
    """Sabotage: the score of a video is the mean over all frames, and updates see the first."""

    def __call__(self, frames):
        return list(range(frames))

    def draw(self, frames, seed):
        return [0]


def error_of(choice, draws=200):
    """The projection of single-frame gradients onto that of all frames: their mean's distance, in standard errors."""
    model, x = Sparing(), latents()

    def slope(choice, seed):
        scores = scored(model, FrameReward(Level(), choice), x, seed).values
        (found,) = torch.autograd.grad(scores.sum(), x)
        return found.flatten()

    exact = slope(AllFrames(), 0)
    # a direction in which frames differ
    direction = exact.view(2, 2, FRAMES, -1) * torch.arange(1.0, FRAMES + 1, dtype=exact.dtype)[:, None]
    drawn = torch.stack([slope(choice, seed) for seed in range(draws)]) @ direction.flatten()
    error = drawn.std() / draws**0.5
    return ((drawn.mean() - exact @ direction.flatten()).abs() / error.clamp_min(1e-9)).item()


def test_a_random_frame_is_unbiased_for_the_mean_over_all():
    assert error_of(RandomFrame()) < 4
    assert error_of(First()) > 10


# ---------------------------------------------------------------- VADER and its memory


def test_vader_decodes_one_frame_and_backpropagates_one_step():
    model = Sparing()
    module = align_clips(model=model, estimator=FirstOrder(steps=1), offload_activations=True, checkpoint_steps=True)
    evaluations = []
    denoise = model.denoise
    model.denoise = lambda *x: evaluations.append(torch.is_grad_enabled()) or denoise(*x)
    run(module, prompts(4), 3)
    assert model.decoded == 3
    # four steps without a gradient, one with, and that again in the backward pass
    assert evaluations == 3 * (4 * [False] + 2 * [True])


class Counting(Offload):
    """Counts what is stored, and what stays; ``spoil`` loses it."""

    stored = stayed = 0
    spoil = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        pack, unpack = self.pack_hook, self.unpack_hook

        def store(x):
            kept = pack(x)
            name = "stayed" if isinstance(kept, torch.Tensor) else "stored"
            setattr(type(self), name, getattr(type(self), name) + 1)
            return kept

        self.pack_hook = store
        self.unpack_hook = lambda kept: self._spoilt(unpack(kept))

    def _spoilt(self, x):
        return 1.5 * x if self.spoil and x.is_floating_point() else x


@pytest.fixture
def counting(monkeypatch):
    kind = type("Mine", (Counting,), {})
    monkeypatch.setattr(memory, "Offload", kind)
    return kind


@pytest.mark.parametrize(
    ("name", "checkpoint"),
    [*((name, False) for name in ESTIMATORS), *((name, True) for name in ("full", "rlr", "alignprop", "ddpo"))],
)
def test_offloading_changes_no_gradient(name, checkpoint, counting):
    """Also of the reward and the decoder; zeroth order has no graph to speak of."""
    found = []
    for kind in ({}, {"offload_activations": True}):
        # with Adam the step would not tell the length of a gradient
        plain = {"optimizer": lambda w: torch.optim.SGD(w, 1.0)}
        module = align_clips(estimator=ESTIMATORS[name](), checkpoint_steps=checkpoint, **plain, **kind)
        before = weights(module)
        run(module, prompts(4), 1)
        found.append(weights(module))
        assert not torch.equal(before, found[-1])
        assert (counting.stored > 0) == bool(kind)
    assert torch.equal(*found)


def test_lost_activations_are_noticed(counting):
    """The law above must be able to fail."""
    counting.spoil = True
    found = []
    for offload in (False, True):
        module = align_clips(estimator=FirstOrder(2), offload_activations=offload)
        run(module, prompts(4), 2)
        found.append(weights(module))
    assert not torch.allclose(*found, atol=1e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_weights_stay_where_they_are(bias):
    layer = nn.Linear(6, 4, bias=bias).requires_grad_(False)
    kind = type("Mine", (Counting,), {})
    x = torch.randn(3, 6, requires_grad=True)
    with kind(layer.parameters(), pin=False):
        y = layer(x).tanh().sum()
    # the weight for the layer, the output for the tanh
    assert (kind.stayed, kind.stored) == (1, 1)
    (slope,) = torch.autograd.grad(y, x)
    torch.testing.assert_close(slope, (1 - layer(x).tanh() ** 2) @ layer.weight)


# ---------------------------------------------------------------- mistakes


class Wrong(Sparing):
    def decode(self, x, frames=None):
        return super().decode(x)


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: align_clips(model=AffineModel()), r"VideoAlignment .* AffineModel makes images.*use ImageAlignment"),
        (lambda: align(model=Sparing()), r"ImageAlignment .* Sparing makes videos of 4 frames; use VideoAlignment"),
        (
            lambda: align_clips(reward=Level()),
            r"Level scores images, and the model makes videos; wrap the reward in FrameR",
        ),
        (lambda: align(reward=FrameReward(Level())), r"FrameReward scores videos, and the model makes images; use"),
        (lambda: align(reward=TWO), r"Combine scores videos, and the model makes images"),
        (lambda: align_clips(reward=FrameReward(Level(), EvenlySpaced(5))), r"EvenlySpaced\(5\) got a video of 4 fr"),
        (lambda: FrameReward(FrameReward(Level())), r"FrameReward wraps a reward of images, and Level scores videos"),
        (
            lambda: Combine({"a": Level(), "b": FrameReward(Level())}, {"a": 1.0, "b": 1.0}),
            r"\['a', 'b'\] in Combine some score images and others videos; wrap",
        ),
    ],
)
def test_what_does_not_go_together_is_said_at_once(build, says):
    with pytest.raises(ValueError, match=says):
        build()


def test_a_reward_of_frames_without_gradient_is_refused_in_training_alone():
    module = align_clips(reward=FrameReward(Hard()))
    with pytest.raises(ValueError, match=r"Replay .* Hard has no gradient"):
        check_training(module.chain.model, module.reward, module.estimator, Trainer(accelerator="cpu", logger=False))


def test_videos_need_a_frame_rate():
    model = Sparing()
    model.size = Size(SIDE, SIDE, FRAMES)
    with pytest.raises(ValueError, match="videos of Sparing have 4 frames and no frame rate; set its fps"):
        align_clips(model=model)


def test_frames_that_were_not_asked_for_are_refused():
    with pytest.raises(ValueError, match=r"decode returned pixels of shape \(2, 4, 3, 16, 16\) for 1 frames"):
        scored(Wrong(), FrameReward(Level()), latents())


def test_the_reward_of_videos_in_the_documents_trains():
    text = (Path(__file__).parents[2] / "docs" / "video.md").read_text(encoding="utf-8")
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "class " in code]
    made: dict = {}
    exec(code, made)
    module = align_clips(reward=made["Stillness"]())
    run(module, prompts(4), 1)
    assert module.chain.model.decoded == 2
