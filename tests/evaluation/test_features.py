"""Features tell images apart, and only them."""

import pytest
import torch

from rlr.evaluation import CLIPFeatures, Colors, Diversity, Evaluator, RewardMetric, SampleSet
from rlr.evaluation.diversity import diversity
from rlr.rewards import PickScore
from rlr.rewards.base import Reward
from tests.modules.toy import WORDS, align
from tests.rewards.folder import FOLDER


@pytest.fixture(scope="module")
def clip() -> CLIPFeatures:
    return CLIPFeatures(PickScore(str(FOLDER)))


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_colors_are_averages_on_grids():
    pixels = torch.zeros(1, 3, 32, 32)
    pixels[:, 0, :, 16:] = 1  # the right half is red
    assert Colors((1,))(pixels).tolist() == [[0.5, 0, 0]]
    assert Colors((2,))(pixels)[0, :4].tolist() == [0, 0.5, 0, 0.5]
    assert Colors()(pixels).shape == (1, 255)


def test_those_of_a_reward_are_what_its_score_is_made_of(clip):
    pixels, prompts = images(2), ["a red circle", "a blue square"]
    features = clip(pixels)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    texts = clip.reward._text_features(prompts)
    expected = clip.reward(pixels, prompts)
    torch.testing.assert_close(clip.reward.clip.logit_scale.exp() * (features * texts).sum(1), expected)


def test_the_same_image_has_no_distance(clip):
    one, other = images(2)
    same, apart = torch.stack([one, one])[None], torch.stack([one, other])[None]
    for features in (clip, Colors()):
        assert diversity(same, features).item() == pytest.approx(0, abs=1e-6)
        assert diversity(apart, features) > 1e-3


def test_the_choice_of_features_is_measured():
    class Red(Colors):
        def __call__(self, pixels):
            return pixels[:, 0].flatten(1)

    chain = align().chain
    found = [Evaluator(SampleSet(WORDS[:3], 2), [Diversity(f)]).evaluate(chain) for f in (None, Red())]
    scores = [evaluated.values["diversity"] for evaluated in found]
    assert scores[0].shape == scores[1].shape == (3, 1)
    assert not torch.allclose(*scores)


def test_scores_leave_a_reward_that_learns_alone():
    class Learning(Reward):
        seen = 0

        def forward(self, samples, prompts):
            self.seen += 0 if torch.is_inference_mode_enabled() else 1
            return samples.flatten(1).mean(1)

    reward = Learning()
    scores = Evaluator(SampleSet(WORDS[:3]), [RewardMetric(reward)]).evaluate(align().chain).values["Learning"]
    assert (reward.seen, scores.is_inference(), scores.requires_grad) == (0, False, False)
