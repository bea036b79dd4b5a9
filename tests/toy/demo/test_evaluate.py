import math

import pytest
import torch

from rlr.chain import Chain
from rlr.evaluation.statistics import compare
from rlr.samplers import DDIM
from rlr.toy.demo.images import Images
from rlr.toy.demo.world import show
from rlr.toy.world.caption import parse
from rlr.toy.world.prompts import held_out_prompts
from tests.toy.demo.toy import Light, Smear
from tests.toy.demo.toy import evaluate as evaluate_world

PROMPTS = held_out_prompts(6)


def evaluate(*args, **settings):
    return evaluate_world(Images(), *args, **settings)


def chain(steps: int = 3) -> Chain:
    return Chain(Smear(), DDIM(steps, eta=1.0))


def test_a_sample_depends_on_its_prompt_and_number_only() -> None:
    together = evaluate(chain(), Light(), PROMPTS, samples=3, batch=60)
    apart = evaluate(chain(), Light(), PROMPTS, samples=3, batch=4)
    fewer = evaluate(chain(), Light(), PROMPTS[:2], samples=1)
    torch.testing.assert_close(apart[1], together[1])
    torch.testing.assert_close(fewer[1][:, 0], together[1][:2, 0])
    assert not torch.allclose(together[1][:, 0], together[1][:, 1])


def test_another_seed_is_another_noise() -> None:
    one, other = (evaluate(chain(), Light(), PROMPTS, seed=seed)[1] for seed in (0, 1))
    assert not torch.allclose(one, other)


def test_rewards_are_those_of_the_pixels() -> None:
    result = evaluate(chain(), Light(), PROMPTS, samples=2)
    torch.testing.assert_close(result[0]["reward"], result[1].mean((2, 3, 4)))


def test_new_pairs_are_scored_apart() -> None:
    scores = evaluate(chain(), Light(), PROMPTS)[0]
    new = torch.tensor([parse(prompt).novel for prompt in PROMPTS])
    assert 0 < new.sum() < len(PROMPTS)
    assert scores["novel"][~new].isnan().all()
    torch.testing.assert_close(scores["novel"][new], scores["all"][new])


def test_every_measurement_has_a_label() -> None:
    assert set(evaluate(chain(), Light(), PROMPTS)[0]) == set(Images.labels)


def test_comparison_of_a_model_with_itself_is_zero() -> None:
    result = evaluate(chain(), Light(), PROMPTS)
    for comparison in compare(result[0], result[0]).values():
        assert comparison.difference == 0
        # a claim that a single prompt makes has no interval
        assert (comparison.low, comparison.high) == (0, 0) or math.isnan(comparison.low)
    assert (compare(result[0], result[0])["all"].low, compare(result[0], result[0])["all"].high) == (0, 0)


def test_a_brighter_model_has_a_higher_reward_on_the_same_noise() -> None:
    base, brighter = chain(), chain()
    brighter.model.bias.data += 0.3
    before, after = (evaluate(chain, Light(), PROMPTS)[0] for chain in (base, brighter))
    comparison = compare(before, after)["reward"]
    assert 0 < comparison.low <= comparison.difference <= comparison.high
    assert comparison.aligned - comparison.base == pytest.approx(comparison.difference, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "value", "signed", "text"),
    [("all", 0.5, False, "50.0 %"), ("all", -0.125, True, "−12.5"), ("diversity", 0.25, True, "+0.250")],
)
def test_numbers_as_text(name: str, value: float, signed: bool, text: str) -> None:
    assert show(name, value, signed) == text
