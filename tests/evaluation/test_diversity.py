"""Diversity is a distance of samples: zero exactly when they agree, known where images have one color."""

import pytest
import torch

from rlr.evaluation.diversity import diversity


def test_diversity_is_zero_exactly_when_samples_agree() -> None:
    pixels = torch.rand(2, 1, 3, 32, 32).repeat(1, 3, 1, 1, 1)
    assert diversity(pixels).tolist() == [0, 0]
    pixels[1, 2] = 1 - pixels[1, 2]
    assert diversity(pixels)[0] == 0
    assert diversity(pixels)[1] > 0


def test_diversity_of_black_and_white() -> None:
    # each of four grids sees a mean squared difference of 1 in each of three colors: √(3 · 4)
    pixels = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])[None]
    torch.testing.assert_close(diversity(pixels), torch.tensor([12**0.5]))


def test_diversity_needs_two_samples() -> None:
    with pytest.raises(ValueError, match="samples=2"):
        diversity(torch.rand(4, 1, 3, 32, 32))
