"""A stage changes the steps of its own group and no other, whatever the chain, guidance and estimator do with it."""

import copy
import pickle

import pytest
import torch
from lightning.fabric.utilities.apply_func import move_data_to_device

from rlr.chain import Chain
from rlr.data import PromptBatch
from rlr.models import Frozen, Guidance, StableDiffusion, StagedPrompt
from rlr.models.staged import StagedCondition, encode
from rlr.samplers import DDIM
from tests.modules.toy import AffineModel

STAGES = ("a red circle", "two blue square", "a green heart")


@pytest.fixture(scope="module", params=[1.0, 3.0], ids=["plain", "guided"])
def chain(request, random_sd):
    return Chain(Guidance(StableDiffusion(str(random_sd()), Frozen()), request.param), DDIM(7, eta=1.0))


def states(chain: Chain, prompts: list[str]) -> torch.Tensor:
    return chain.sample(chain.encode(prompts), chain.draw(range(len(prompts)))).states


# ---------------------------------------------------------------- the prompt


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(3, "012"), (5, "00112"), (6, "001122"), (10, "0000111222"), (50, "0" * 17 + "1" * 17 + "2" * 16)],
)
def test_stages_are_thirds_by_default(steps, expected):
    prompt = StagedPrompt("whole", ("0", "1", "2"))
    assert "".join(prompt.at(t, steps) for t in range(steps, 0, -1)) == expected


def test_starts_say_when_stages_begin():
    prompt = StagedPrompt("whole", ("0", "1", "2"), (0.1, 0.6))
    assert "".join(prompt.at(t, 10) for t in range(10, 0, -1)) == "0111112222"


def test_it_is_the_whole_prompt_to_all_who_read_strings():
    prompt = StagedPrompt("a hand", ("one", "two"))
    assert prompt == "a hand"
    assert f"{prompt}!" == "a hand!"
    assert {"a hand": 1}[prompt] == 1


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_keep_the_stages(copied):
    prompt = StagedPrompt("a hand", ("one", "two"), (0.3,))
    assert repr(copied(prompt)) == repr(prompt) == "StagedPrompt('a hand', ('one', 'two'), (0.3,))"


def test_so_does_the_way_of_a_batch_to_its_device():
    batch = PromptBatch([StagedPrompt("a hand", ("one", "two"))], [3])
    assert repr(move_data_to_device(batch, torch.device("cpu"))) == repr(batch)


@pytest.mark.parametrize(
    ("stages", "starts", "stated"),
    [
        ((), None, "write at least one"),
        (("a", " "), None, "none blank"),
        (("a", "b"), (), "2 stages need 1 starts"),
        (("a", "b", "c"), (0.5, 0.5), "increase within"),
        (("a", "b"), (1.0,), "increase within"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages, starts, stated):
    with pytest.raises(ValueError, match=stated):
        StagedPrompt("a hand", stages, starts)


# ---------------------------------------------------------------- the condition


def test_one_prompt_for_all_stages_is_that_prompt(chain):
    prompt = StagedPrompt("whole", (STAGES[0],) * 3)
    assert torch.equal(states(chain, [prompt]), states(chain, [STAGES[0]]))


@pytest.mark.parametrize("changed", [0, 1, 2])
def test_a_stage_changes_its_own_steps_and_what_follows(chain, changed):
    other = [*STAGES]
    other[changed] = "three"
    one, two = (states(chain, [StagedPrompt("whole", stages)]) for stages in (STAGES, other))
    first = next(t for t in range(7, 0, -1) if StagedPrompt("whole", STAGES).stage(t, 7) == changed)
    # to the bit
    assert torch.equal(one[first:], two[first:])
    assert all(not torch.equal(one[t], two[t]) for t in range(first))


def test_each_step_is_that_of_its_stage_s_prompt_alone(chain):
    prompt = StagedPrompt("whole", STAGES)
    trajectory = chain.sample(chain.encode([prompt]), chain.draw([0]))
    for t in range(7, 0, -1):
        plain = chain.model.encode([prompt.at(t, 7)])
        expected = chain.transition(trajectory.states[t], t, plain).sample(trajectory.noises[t - 1])
        assert torch.equal(trajectory.states[t - 1], expected)


def test_replayed_steps_are_the_recorded_ones(chain):
    prompts = [StagedPrompt("whole", STAGES), StagedPrompt("other", STAGES[::-1], (0.3, 0.5)), "a plain one"]
    trajectory = chain.sample(chain.encode(prompts), chain.draw(range(3)))
    for start, stop in ((7, 0), (5, 3), (1, 0)):
        again = chain.replay(trajectory, start, stop).sample(trajectory.noises[stop])
        assert torch.equal(again, trajectory.states[stop])


def test_prompts_of_a_batch_keep_their_own_stages(chain):
    prompts = [StagedPrompt("whole", STAGES), StagedPrompt("other", STAGES[:2]), "a plain one"]
    together = states(chain, prompts)
    for i, prompt in enumerate(prompts):
        alone = chain.sample(chain.encode([prompt]), chain.draw([i])).states[:, 0]
        torch.testing.assert_close(together[:, i], alone, rtol=1e-4, atol=1e-5)


def test_samples_are_selected_in_all_stages():
    model = AffineModel()
    condition = encode(model, [StagedPrompt("x", ("one", "two")), StagedPrompt("y", ("three", "four"))], 4)
    picked = condition.map(lambda c: c[[1]])
    assert [(8 * picked.at(t).tensors["c"]).tolist() for t in (4, 3, 2, 1)] == [[3], [3], [4], [4]]


def test_each_stage_is_encoded_once():
    model, asked = AffineModel(), []
    encoded = model.encode
    model.encode = lambda prompts: asked.append(prompts) or encoded(prompts)
    condition = encode(model, [StagedPrompt("x", ("one", "two")), "three"], 10)
    assert sorted(asked) == [["one", "three"], ["two", "three"]]
    assert isinstance(condition, StagedCondition)
    assert condition.at(10) is condition.at(6)
    assert len({id(c) for c in condition.map(torch.clone).steps.values()}) == 2


def test_plain_prompts_have_a_plain_condition():
    assert not isinstance(encode(AffineModel(), ["one", "two"], 4), StagedCondition)


def test_a_chain_with_fewer_steps_than_stages_is_refused():
    with pytest.raises(ValueError, match="stage 3 of the prompt 'x' has no step in a chain of 2"):
        encode(AffineModel(), [StagedPrompt("x", ("one", "two", "three"), (0.1, 0.9))], 2)
