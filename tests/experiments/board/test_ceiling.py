"""How well a reward separates right from wrong samples: known answers."""

import pytest
import torch

from experiments.board.ceiling import (
    EXPLAINED,
    PAIRS,
    RENDERS,
    REWARDS,
    RIGHT,
    WRONG,
    Ceiling,
    CeilingExperiment,
    explained,
    statistics,
)
from experiments.board.prompts import BoardPrompts
from experiments.settings import SD14, TINY
from rlr.toy.data.scenes import draw_images
from rlr.toy.rewards import ExactCheck

RIGHTS = torch.tensor([[True, True, False], [False, False, True]])


def of(reward: torch.Tensor) -> dict[str, float]:
    return {str(row["group"]): float(row["value"]) for row in statistics(reward, RIGHTS)}


def test_a_reward_that_is_the_check_separates_all_pairs_and_a_constant_is_chance() -> None:
    assert of(RIGHTS.double()) == {RIGHT: 1.0, WRONG: 0.0, PAIRS: 1.0, EXPLAINED: pytest.approx(1.0)}
    assert of(1 - RIGHTS.double())[PAIRS] == 0.0
    # equal rewards of a pair count a half
    assert of(torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]))[PAIRS] == 0.5


def test_pairs_are_within_a_caption() -> None:
    reward = torch.tensor([[5.0, 1.0, 3.0], [1.0, 9.0, 8.0]])
    found = statistics(reward, RIGHTS)[2]
    # (5, 3), (1, 3); (8, 1), (8, 9)
    assert (found["group"], found["value"], found["number"]) == (PAIRS, 0.5, 4)
    # differences between captions explain nothing
    shifted = reward + torch.tensor([[100.0], [0.0]])
    assert statistics(shifted, RIGHTS)[2] == found
    assert explained(shifted.double(), RIGHTS.double()) == pytest.approx(explained(reward.double(), RIGHTS.double()))


def test_the_variance_explained_is_the_squared_correlation_of_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    check, noise = torch.randn(2, 4, 50_000, generator=generator, dtype=torch.float64)
    # R = c + 2 e: the correlation is 1 / sqrt(5)
    assert explained(check + 2 * noise, check) == pytest.approx(0.2, abs=0.005)
    assert explained(noise, check) < 1e-4


def test_groups_are_those_of_the_check() -> None:
    rows = Ceiling(captions=6, samples=3).rows()
    assert {row["reward"] for row in rows} == set(REWARDS)
    for name, (make, factor) in REWARDS.items():
        found = {str(row["group"]): row for row in rows if row["reward"] == name}
        captions = list(BoardPrompts(6).captions)
        renders = draw_images(captions, 0).float() / 255
        assert ExactCheck()(renders, captions).eq(1).all()
        assert found[RENDERS]["value"] == pytest.approx(factor * make()(renders, captions).mean().item())
        assert float(found[RIGHT]["number"]) + float(found[WRONG]["number"]) == found[EXPLAINED]["number"] == 18
        assert 0 < float(found[PAIRS]["number"]) <= 6 * 2


def test_the_page_has_a_line_for_every_reward() -> None:
    rows = [
        {"reward": name, "group": kind, "value": 0.5, "number": 3.0}
        for name in REWARDS
        for kind in (RENDERS, RIGHT, WRONG, PAIRS, EXPLAINED)
    ]
    table, numbers = CeilingExperiment().report(rows)
    assert [line[0] for line in table.rows] == list(REWARDS)
    assert table.rows[0][4] == "50.0%"
    assert len(numbers.rows) == 4
    assert [line for table in CeilingExperiment().report([]) for line in table.rows] == []
    assert len(CeilingExperiment().runs(TINY, (0, 1))) == 1
    with pytest.raises(ValueError, match="for the setting tiny alone"):
        CeilingExperiment().runs(SD14, (0,))
