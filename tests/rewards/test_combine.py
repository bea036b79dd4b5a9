"""The weighted sum of rewards and its running z-score."""

from functools import partial

import pytest
import torch
from torch import distributed, multiprocessing

from rlr.rewards import (
    AllFrames,
    Brightness,
    DoubledRange,
    FrameReward,
    HPSv2,
    HPSVersion,
    JPEGCompressibility,
    JPEGIncompressibility,
    PickScore,
)
from rlr.rewards.combine import Combine, RunningZScore
from tests.rewards.folder import FOLDER

PROMPTS = ["a cat", "a dog", "rain"]


def pixels(seed=0):
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def test_it_is_the_weighted_sum_and_shows_its_parts():
    pick, bright = PickScore(str(FOLDER)), Brightness()
    combined = Combine({"pick v1.0": pick, "bright": bright}, {"bright": -2.0, "pick v1.0": 0.5})
    x = pixels().requires_grad_()
    scores = combined(x, PROMPTS)
    parts = combined.score(x, PROMPTS).parts
    torch.testing.assert_close(scores, 0.5 * pick(x, PROMPTS) - 2 * bright(x, PROMPTS))
    assert set(parts) == {"pick v1.0", "pick v1.0/PickScore", "bright", "bright/Brightness"}
    assert torch.equal(parts["bright"], bright(pixels(), PROMPTS))
    assert not any(part.requires_grad for part in parts.values())
    expected = torch.autograd.grad((0.5 * pick(x, PROMPTS) - 2 * bright(x, PROMPTS)).sum(), x)[0]
    torch.testing.assert_close(torch.autograd.grad(scores.sum(), x)[0], expected)


def test_no_gradient_of_half_an_objective():
    combined = Combine({"size": JPEGCompressibility(), "bright": Brightness()}, {"size": 1, "bright": 1})
    assert not combined.differentiable
    assert not combined(pixels().requires_grad_(), PROMPTS).requires_grad


def test_names_must_match():
    with pytest.raises(ValueError, match=r"the rewards \['a'\] and weights for \['b'\]; set a weight for every reward"):
        Combine({"a": Brightness()}, {"b": 1.0})


@pytest.mark.parametrize("name", ["mean", "std", "pick/v1"])
def test_a_name_that_logs_need_otherwise(name):
    with pytest.raises(ValueError, match=f"the name {name} of a reward in Combine has another meaning in logs"):
        Combine({name: Brightness()}, {name: 1.0})


def test_parts_say_version_and_scale():
    class Scored(Brightness):
        label = HPSv2.label
        version, scales = HPSVersion.v2_1, HPSv2.scales

    inner = Combine({"hps": Scored()}, {"hps": 1.0})
    combined = Combine({"inner": inner}, {"inner": 0.5})
    parts = combined.score(pixels(), PROMPTS).parts
    raw = Brightness()(pixels(), PROMPTS)
    for name, factor in {
        "inner/Combine": 1,
        "inner/hps": 1,
        "inner/hps/HPSv2.1": 1,
        "inner/hps/HPSv2.1 x100": 100,
    }.items():
        torch.testing.assert_close(parts[name], factor * raw)


def test_a_reward_of_which_lower_is_better_needs_a_negative_weight():
    worse = Brightness()
    worse.higher_is_better = False
    with pytest.raises(ValueError, match=r"of dark lower is better, and its weight in Combine is 1.0"):
        Combine({"dark": worse}, {"dark": 1.0})
    assert Combine({"dark": worse}, {"dark": -1.0}).higher_is_better


def test_the_statistics_are_those_of_all_scores_so_far():
    scaling = RunningZScore()
    batches = 1e4 + torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for i, batch in enumerate(batches):
        scaling.update_statistics(batch)
        so_far = batches[: i + 1].flatten()
        torch.testing.assert_close(scaling(batch), (batch - so_far.mean()) / so_far.std(correction=0))
    assert scaling.count == 35


def test_what_is_provisional_is_replaced():
    scaling, plain = RunningZScore(), RunningZScore()
    first, second = torch.tensor([1.0, 3.0]), torch.tensor([10.0, 20.0])
    scaling.update_statistics(first, provisional=True)
    assert scaling(first).tolist() == [-1, 1]
    for each in (scaling, plain):
        each.update_statistics(second)
    assert all(torch.equal(value, scaling.state_dict()[name]) for name, value in plain.state_dict().items())


def test_old_scores_fade_beyond_the_horizon():
    scaling = RunningZScore(horizon=20)
    for level in (0.0, 5.0):
        for seed in range(20):
            scaling.update_statistics(level + torch.randn(10, generator=torch.Generator().manual_seed(seed)))
    assert scaling.mean.item() == pytest.approx(5, abs=0.3)
    assert scaling.variance.item() == pytest.approx(1, abs=0.4)


def teach(reward, samples):
    """Updates the statistics from the scores of samples, and returns the scores."""
    scores = reward.score(samples, PROMPTS)
    reward.update_statistics(scores)
    return scores


def test_scoring_teaches_nothing_and_statistics_survive_a_checkpoint():
    combined = Combine({"bright": Brightness()}, {"bright": 1.0}, RunningZScore())
    teach(combined, pixels())
    state = {key: value.clone() for key, value in combined.state_dict().items()}
    assert state["scalings.0.count"] == 3
    expected = combined(pixels(1), PROMPTS)
    assert all(torch.equal(combined.state_dict()[key], state[key]) for key in state)
    resumed = Combine({"bright": Brightness()}, {"bright": 1.0}, RunningZScore())
    resumed.load_state_dict(state)
    assert torch.equal(resumed(pixels(1), PROMPTS), expected)


def test_the_statistics_of_other_scalings_are_refused():
    combined = Combine({"bright": Brightness()}, {"bright": 1.0}, RunningZScore())
    before = {name: value for name, value in combined.statistics().items() if not name.endswith("count")}
    with pytest.raises(ValueError, match=r"statistics \['0.mean', '0.variance'\] of Combine, expected .*; resume with"):
        combined.load_statistics(before)


def test_what_is_learnt_from_scores_is_remembered_through_wrappers():
    def build():
        inner = Combine({"bright": Brightness()}, {"bright": 1.0}, RunningZScore())
        outer = Combine({"inner": DoubledRange(inner)}, {"inner": 2.0}, RunningZScore())
        return FrameReward(outer, AllFrames())

    videos = torch.stack([pixels(), pixels(1)], 1)
    reward = build()
    teach(reward, videos)
    memory = {name: value.clone() for name, value in reward.statistics().items()}
    teach(reward, videos / 2)  # what came after must not be in what was taken before
    resumed = build()
    resumed.load_statistics(memory)
    assert all(torch.equal(resumed.statistics()[name], value) for name, value in memory.items())
    assert sum(name.endswith("count") for name in memory) == 2
    assert not torch.equal(reward.statistics()["scalings.0.mean"], memory["scalings.0.mean"])


def test_each_part_has_statistics_of_its_own():
    combined = Combine(
        {"more": JPEGIncompressibility(), "bright": Brightness()}, {"more": 1.0, "bright": 1.0}, RunningZScore()
    )
    parts = teach(combined, pixels()).parts
    means = [combined.state_dict()[f"scalings.{i}.mean"].item() for i in range(2)]
    assert means == pytest.approx([parts[name].mean().item() for name in ("more", "bright")])


@pytest.mark.parametrize("scores", [[3.0], [2.0, 2.0]])
def test_scores_that_tell_no_scale_are_only_centred(scores):
    scaling = RunningZScore()
    scaling.update_statistics(torch.tensor(scores))
    assert scaling(torch.tensor([*scores, 5.0])).tolist() == [*[0.0] * len(scores), 5 - scores[0]]


def test_without_statistics_scores_are_as_they_are():
    assert RunningZScore()(torch.tensor([3.0, 5.0])).tolist() == [3, 5]


def test_a_score_that_is_not_finite_spoils_no_statistics():
    scaling = RunningZScore()
    scores = torch.tensor([1.0, float("nan"), 3.0, float("inf")])
    scaling.update_statistics(scores)
    scaled = scaling(scores)
    assert scaling.count == 2
    assert scaled[[0, 2]].tolist() == [-1, 1]
    assert not scaled[[1, 3]].isfinite().any()


def test_the_scaling_takes_no_part_in_the_gradient():
    scaling, scores = RunningZScore(), torch.tensor([1.0, 3.0], requires_grad=True)
    scaling.update_statistics(scores)
    (slope,) = torch.autograd.grad(scaling(scores).sum(), scores)
    assert slope.tolist() == [1, 1]  # one over the standard deviation, which is 1


def score_on(rank, batches, path):
    distributed.init_process_group("gloo", f"file://{path}", rank=rank, world_size=2)
    scaling = RunningZScore()
    scaling.update_statistics(batches[rank])
    torch.save((scaling(batches[rank]), scaling.mean, scaling.count), f"{path}.{rank}")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_share_their_statistics(tmp_path):
    batches = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    multiprocessing.spawn(partial(score_on, batches=batches, path=str(tmp_path / "store")), nprocs=2)
    whole = RunningZScore()
    whole.update_statistics(batches.flatten())
    expected = whole(batches.flatten()).view(2, 5)
    for rank in range(2):
        scaled, mean, count = torch.load(f"{tmp_path}/store.{rank}", weights_only=True)
        torch.testing.assert_close(scaled, expected[rank])
        torch.testing.assert_close(mean, whole.mean)
        assert count == 10
