"""CLIPScore on PickScore's small model: the same cosine, without the logit scale."""

import torch

from rlr.rewards import PickScore
from rlr.rewards.networks.clipscore import CLIPScore
from tests.rewards.folder import FOLDER


def test_it_is_pickscore_without_the_logit_scale():
    pixels = torch.rand(3, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    prompts = ["a cat", "a dog", "rain"]
    pick = PickScore(str(FOLDER))
    expected = pick(pixels, prompts) / pick.clip.logit_scale.exp()
    torch.testing.assert_close(CLIPScore(str(FOLDER))(pixels, prompts), expected)


def test_the_scale_of_tables_is_stated():
    assert CLIPScore.scales == {"x100": 100}
