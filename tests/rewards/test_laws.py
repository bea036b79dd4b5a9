"""Laws of every reward: own prompt, equivariance, a gradient exactly where one is claimed, range, precision."""

import inspect
import json
import pkgutil
from base64 import b64decode
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib import import_module
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import rlr.rewards
import rlr.toy.rewards
from rlr.rewards import (
    OCR,
    Aesthetic,
    Brightness,
    CLIPScore,
    Combine,
    Detection,
    DoubledRange,
    EvenlySpaced,
    FrameReward,
    FunctionReward,
    GenEval,
    HPSv2,
    HPSv3,
    ImageReward,
    JPEGCompressibility,
    JPEGIncompressibility,
    PartialCredit,
    PickScore,
    Relative,
    Remote,
    Reward,
    RunningZScore,
    ViCLIP,
    VideoAlign,
    VLMJudge,
)
from rlr.rewards.base import Scores
from rlr.rewards.networks.preprocessing import Preprocessing
from rlr.toy.data.scenes import draw_images
from rlr.toy.rewards import DynamicCheck, ExactCheck, MotionCheck, TinyHPSv2, TinyPickScore
from rlr.toy.world.motion import parse_video
from rlr.toy.world.videos import draw_videos
from tests.data.completions import Completions, completion, running
from tests.rewards.authors import aes, hpsv2, imagereward
from tests.rewards.folder import FOLDER
from tests.rewards.random_viclip import viclip
from tests.rewards.server import serving
from tests.rewards.test_hpsv3 import write
from tests.rewards.test_videoalign import write as write_videoalign

OFFICIAL = Preprocessing.official
PICTURES = ["a red circle", "two blue squares", "a green triangle", "three red circles"]
CLIPS = [
    "a red circle moving left",
    "two green hearts growing",
    "a blue cross moving up slowly",
    "a red heart shrinking",
]


COUNTED = [f"a photo of {count} cats" for count in (62, 70, 80, 90)]
QUOTED = [f'a sign that says "{"a" * count}"' for count in (62, 70, 80, 90)]


@dataclass(frozen=True)
class Case:
    """A reward and what is true of it.

    Args:
        kind: Its class.
        reads_prompt: Whether its score depends on the prompt.
        interval: Where its scores are.
        make: Returns the reward, or a context in which it lives; by default calls the class.
        prompts: Those of the samples, captions of images or of videos.
    """

    kind: type[Reward]
    reads_prompt: bool
    interval: tuple[float, float]
    make: Callable[[], Reward | AbstractContextManager[Reward]] | None = None
    prompts: tuple[str, ...] = tuple(PICTURES)


def pick(**options: object) -> PickScore:
    return PickScore(str(FOLDER), **options)


def both(other: Reward, scaling: RunningZScore | None = None) -> Combine:
    return Combine({"pick": pick(), "other": other}, {"pick": 0.1, "other": 0.5}, scaling)


def scaled() -> Combine:
    """A combination with running statistics."""
    reward = both(Brightness(), RunningZScore())
    parts = {"pick": torch.tensor([-3.0, 1.0]), "other": torch.tensor([0.25, 0.75])}
    reward.update_statistics(Scores(torch.zeros(2), parts))
    return reward


def redness(samples, prompts):
    return samples[:, 0].mean((1, 2))


def contrast(samples, prompts):
    return samples.numpy().std((1, 2, 3)) + [float(len(prompt)) for prompt in prompts]


def reading(images):
    """Reads as many letters as the image is bright."""
    return ["a" * round(60 * image.mean() / 255) for image in images]


def finding(images):
    """Finds as many cats as the image is bright."""
    return [[Detection("cat", 0.9, (0, 0, 9, 9))] * len(text) for text in reading(images)]


@contextmanager
def geneval():
    with TemporaryDirectory() as folder:
        path = Path(folder) / "metadata.jsonl"
        path.write_text("".join(json.dumps(asking(prompt)) + "\n" for prompt in COUNTED))
        yield GenEval(str(path), finding, lambda image, objects, name: [], PartialCredit(), most=99)


def asking(prompt):
    return {"tag": "cats", "include": [{"class": "cat", "count": int(prompt.split()[3])}], "prompt": prompt}


@contextmanager
def remote():
    with serving(pick()) as url:
        yield Remote(url, batch=3)


@contextmanager
def hpsv3(way):
    with TemporaryDirectory() as folder:
        write(Path(folder))
        yield HPSv3(folder, f"{folder}/base", way, "float32", pixels=4 * 28 * 28)


@contextmanager
def videoalign(way):
    with TemporaryDirectory() as folder:
        write_videoalign(Path(folder))
        yield VideoAlign(8.0, folder, f"{folder}/base", preprocessing=way, dtype="float32")


def opinion(content):
    """A model that scores an image by its brightness and the words of its question."""
    image = np.array(Image.open(BytesIO(b64decode(content[0]["image_url"]["url"].partition(",")[2]))))
    return completion(f"Final Score: {1 + image.mean() / 255 + len(content[1]['text']) / 1000}")


@contextmanager
def judged():
    with running(Completions((200, opinion))) as url:
        yield VLMJudge(url, "m")


C, M = tuple(CLIPS), 100.0
CASES = {
    "brightness": Case(Brightness, False, (0, 1)),
    "jpeg": Case(JPEGIncompressibility, False, (0.1, 10)),
    "minus jpeg": Case(JPEGCompressibility, False, (-10, -0.1)),
    "exact": Case(ExactCheck, True, (0, 1)),
    "exact, partial": Case(ExactCheck, True, (0, 1), lambda: ExactCheck(partial=True)),
    "pickscore": Case(PickScore, True, (-M, M), pick),
    "pickscore, in chunks": Case(PickScore, True, (-M, M), lambda: pick(chunk=3, cache=2)),
    "pickscore, official": Case(PickScore, True, (-M, M), lambda: pick(preprocessing=OFFICIAL)),
    "pickscore, tiny": Case(TinyPickScore, True, (-M, M)),
    "clipscore": Case(CLIPScore, True, (-1, 1), lambda: CLIPScore(str(FOLDER))),
    "hpsv2": Case(HPSv2, True, (-1, 1), hpsv2),
    "hpsv2, official": Case(HPSv2, True, (-1, 1), lambda: hpsv2(preprocessing=OFFICIAL)),
    "hpsv2, tiny": Case(TinyHPSv2, True, (-1, 1)),
    "aes": Case(Aesthetic, False, (-10, 10), aes),
    "aes, official": Case(Aesthetic, False, (-10, 10), lambda: aes(preprocessing=OFFICIAL)),
    "imagereward": Case(ImageReward, True, (-5, 5), imagereward),
    "imagereward, official": Case(ImageReward, True, (-5, 5), lambda: imagereward(preprocessing=OFFICIAL)),
    "hpsv3": Case(HPSv3, True, (-10, 10), lambda: hpsv3(Preprocessing.training)),
    "hpsv3, official": Case(HPSv3, True, (-10, 10), lambda: hpsv3(OFFICIAL)),
    "doubled": Case(DoubledRange, True, (-M, M), lambda: DoubledRange(pick())),
    "doubled, a black box": Case(DoubledRange, False, (-10, -0.1), lambda: DoubledRange(JPEGCompressibility())),
    "relative": Case(Relative, True, (-M, M), lambda: Relative(pick(), ["red"], ["blue"])),
    "combine": Case(Combine, True, (-10, 10), lambda: both(Brightness())),
    "combine with a black box": Case(Combine, True, (-20, 20), lambda: both(JPEGCompressibility())),
    "combine, running z-score": Case(Combine, True, (-10, 10), scaled),
    "function": Case(FunctionReward, False, (0, 1), lambda: FunctionReward(redness)),
    "function of NumPy": Case(FunctionReward, True, (0, 60), lambda: FunctionReward(contrast)),
    "ocr": Case(OCR, True, (0, 1), lambda: OCR(reading), tuple(QUOTED)),
    "geneval": Case(GenEval, True, (0, 1), geneval, tuple(COUNTED)),
    "judge": Case(VLMJudge, True, (0, 1), judged),
    "remote": Case(Remote, True, (-M, M), remote),
    "frames": Case(FrameReward, True, (-M, M), lambda: FrameReward(pick()), C),
    "frames, two of a black box": Case(
        FrameReward, False, (-10, -0.1), lambda: FrameReward(JPEGCompressibility(), EvenlySpaced(2)), C
    ),
    "frames, doubled": Case(DoubledRange, True, (-M, M), lambda: DoubledRange(FrameReward(pick())), C),
    "videoalign": Case(VideoAlign, True, (-50, 50), lambda: videoalign(Preprocessing.training), C),
    "videoalign, official": Case(VideoAlign, True, (-50, 50), lambda: videoalign(OFFICIAL), C),
    "viclip": Case(ViCLIP, True, (-1, 1), viclip, C),
    "viclip, official": Case(ViCLIP, True, (-1, 1), lambda: viclip(OFFICIAL), C),
    "motion": Case(MotionCheck, True, (0, 1), prompts=C),
    "motion, partial": Case(MotionCheck, True, (0, 1), lambda: MotionCheck(partial=True), C),
    "dynamic": Case(DynamicCheck, False, (0, 1), prompts=C),
}


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return CASES[request.param]


@pytest.fixture(scope="module")
def reward(case):
    made = (case.make or case.kind)()
    with made if isinstance(made, AbstractContextManager) else nullcontext(made) as reward:
        yield reward


@pytest.fixture(scope="module")
def renders():
    """Renders of the prompts, a little noisy so that no two are alike."""
    clean = {
        tuple(PICTURES): draw_images(PICTURES, seed=1).float() / 255,
        tuple(CLIPS): draw_videos([parse_video(caption) for caption in CLIPS], 0).float() / 255,
    }
    clean[tuple(QUOTED)] = clean[tuple(COUNTED)] = clean[tuple(PICTURES)]
    generator = torch.Generator().manual_seed(0)
    return {
        key: (pixels + 0.02 * torch.randn(pixels.shape, generator=generator)).clamp(0, 1)
        for key, pixels in clean.items()
    }


@pytest.fixture
def samples(case, renders):
    return renders[case.prompts]


@pytest.fixture(scope="module")
def plain(case, reward, renders):
    """The scores of the samples, which many laws compare with."""
    return reward(renders[case.prompts], case.prompts)


@pytest.fixture(scope="module")
def reference(case, reward, renders):
    """The scores of the samples and their gradient, which many laws compare with."""
    return slope(reward, renders[case.prompts], case.prompts)


def altered(samples):
    """The samples with another second one: an image of other colors the other way round, a video that stands still."""
    other = samples.clone()
    if samples.ndim == 5:
        other[1] = samples[1, :1]
    else:
        other[1] = 0.25 + 0.5 * samples[1].flip(-1).roll(1, 0)
        other[1, 2] *= 0.3
    return other


def test_every_reward_is_a_case():
    for package in (rlr.rewards, rlr.toy.rewards):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)
    found, waiting = set(), [Reward]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(("rlr.rewards.", "rlr.toy.rewards.")) and not inspect.isabstract(kind):
            found.add(kind)
    assert found == {case.kind for case in CASES.values()}
    exported = [*vars(rlr.rewards).values(), *vars(rlr.toy.rewards).values()]
    assert found == {kind for kind in exported if inspect.isclass(kind) and issubclass(kind, Reward)} - {Reward}


def test_one_number_a_sample_in_range(case, reward, plain):
    low, high = case.interval
    assert type(reward) is case.kind
    assert plain.shape == (4,)
    assert plain.dtype == torch.float32
    assert ((low <= plain) & (plain <= high)).all()


def test_reads_what_it_says(case, reward):
    reward.check(video=case.prompts == tuple(CLIPS))


def test_depends_on_its_own_prompt_alone(case, reward, samples, plain):
    after = reward(samples, [case.prompts[0], case.prompts[0], *case.prompts[2:]])
    changed = (plain - after).abs() > 1e-4
    assert changed.tolist() == [False, case.reads_prompt, False, False]


def test_depends_on_its_own_sample_alone(case, reward, samples, plain):
    changed = (plain - reward(altered(samples), case.prompts)).abs() > 1e-4
    assert changed.tolist() == [False, True, False, False]


def test_permuting_the_batch_permutes_the_scores(case, reward, samples, plain):
    order = [2, 0, 3, 1]
    permuted = reward(samples[order], [case.prompts[i] for i in order])
    torch.testing.assert_close(permuted, plain[order], atol=1e-4, rtol=1e-5)


def test_has_a_gradient_in_the_pixels_iff_it_says_so(case, reward, samples):
    pixels = samples.clone().requires_grad_()
    scores = reward(pixels, case.prompts)
    assert scores.requires_grad == reward.differentiable
    if reward.differentiable:
        (gradient,) = torch.autograd.grad(scores[1], pixels)
        assert gradient[1].abs().max() > 0
        assert gradient[[0, 2, 3]].abs().max() == 0


def slope(reward, samples, prompts):
    """The scores, and the gradient of their finite ones where there is one."""
    pixels = samples.clone().requires_grad_()
    scores = reward(pixels, prompts)
    finite = scores.detach().isfinite()
    gradient = torch.autograd.grad(scores[finite].sum(), pixels)[0] if reward.differentiable else None
    return scores.detach(), gradient


def test_one_pixel_that_is_not_finite_is_nan_and_the_other_samples_do_not_notice(case, reward, samples, reference):
    """The last sample stays; each of the others has one such pixel, in another place."""
    bad = samples.clone()
    bad.view(4, -1)[[0, 1, 2], [7, 11, -1]] = torch.tensor([torch.inf, torch.nan, -torch.inf])
    expected, gradient = reference
    scores, bad_gradient = slope(reward, bad, case.prompts)
    assert scores.isnan().tolist() == [True, True, True, False]
    assert torch.equal(scores[3], expected[3])
    if reward.differentiable:
        assert torch.equal(bad_gradient[3], gradient[3])
        assert (bad_gradient[:3] == 0).all()


def test_scores_are_those_of_a_call_and_their_parts_have_no_graph(case, reward, samples):
    samples = samples.clone()
    samples[1, ..., 0, 0] = torch.nan
    scores = reward.score(samples.requires_grad_(), case.prompts)
    assert scores.values.isnan().tolist() == [False, True, False, False]
    assert torch.equal(scores.values.nan_to_num(), reward(samples, case.prompts).nan_to_num())
    assert scores.values.requires_grad == reward.differentiable
    for part in scores.parts.values():
        assert not part.requires_grad
        assert part.view(4, -1).isnan().all(1).tolist() == [False, True, False, False]


def test_a_batch_without_a_finite_sample_is_nan(case, reward, samples):
    assert reward(torch.full_like(samples, torch.nan), case.prompts).isnan().all()


def test_a_frame_that_is_not_finite_is_nan_in_the_frames_of_an_update(case, reward, samples):
    if samples.ndim == 5:
        bad = samples.clone()
        bad[2, :, 1, 0, 0] = torch.nan
        selection = reward.select_frames(samples.shape[1], 3)
        frames = bad if selection.frames is None else bad[:, list(selection.frames)]
        assert selection.score(frames, case.prompts).values.isnan().tolist() == [False, False, True, False]


def test_autocast_around_forward_and_backward_changes_nothing(case, reward, samples, reference):
    scores, gradient = reference
    with torch.autocast("cpu", torch.bfloat16):
        cast_scores, cast_gradient = slope(reward, samples, case.prompts)
    assert torch.equal(cast_scores, scores)
    if reward.differentiable:
        assert torch.equal(cast_gradient, gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_neither_does_a_cast_of_the_module_that_holds_it(case, reward, samples, reference, dtype):
    scores, gradient = reference
    with default_dtype(dtype):
        cast_scores, cast_gradient = slope(nn.ModuleList([reward]).to(dtype)[0], samples, case.prompts)
    assert torch.equal(cast_scores, scores)
    if reward.differentiable:
        assert torch.equal(cast_gradient, gradient)


@contextmanager
def default_dtype(dtype):
    """What Lightning does in a training step of such a precision."""
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def test_is_frozen_and_stays_in_eval_mode(reward):
    reward.train()
    assert not any(part.training for part in reward.modules())
    assert not any(p.requires_grad for p in reward.parameters())


def test_scores_with_parts_are_the_scores(case, reward, samples, plain):
    """Both routes agree, parts have no graph, and a selection of all frames is no other score."""
    scores = reward.score(samples, case.prompts)
    assert torch.equal(scores.values, plain)
    assert scores.higher_is_better == reward.higher_is_better
    assert not any(part.requires_grad for part in scores.parts.values())
    assert all(len(part) == len(samples) for part in scores.parts.values())
    assert torch.equal(scores.objective, scores.values if reward.higher_is_better else -scores.values)


def test_a_score_changes_no_statistic(case, reward, samples):
    before = reward.statistics()
    reward.score(samples, case.prompts)
    after = reward.statistics()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
