"""The gradient of an alignment: its batches are those of its training prompts, and its memory is measured."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from rlr.analysis.memory import available_bytes, peak_memory, predicted_full_memory
from rlr.analysis.problem import Problem
from rlr.analysis.training import TrainingGradient
from rlr.estimators import AllSteps, FirstOrder
from rlr.rewards import Combine, RunningZScore
from tests.modules.toy import Hard, Level, align, prompts


def training(**changes: object) -> TrainingGradient:
    return TrainingGradient(align(**changes), prompts(batch_size=4))


def test_a_batch_follows_from_its_number() -> None:
    one, other = training(), training()
    other.batch(3)
    for number in (2, 0):
        assert one.batch(number).prompts == other.batch(number).prompts
        assert torch.equal(one.batch(number).noises, other.batch(number).noises)
    assert not torch.equal(one.batch(0).noises, one.batch(1).noises)
    assert one.batch(0).seed != one.batch(1).seed
    seeded = TrainingGradient(align(), prompts(batch_size=4), seed=1)
    assert not torch.equal(one.batch(0).noises, seeded.batch(0).noises)


def test_the_prompts_are_those_of_the_training() -> None:
    stream = prompts(batch_size=4).train_dataloader()
    expected = [batch.prompts for _ in range(3) for batch in stream]
    found = training()
    assert found.batch_size == 4
    assert [found.batch(number).prompts for number in range(len(expected))] == expected


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_the_samples_of_a_prompt_are_counted(samples: int) -> None:
    assert TrainingGradient(align(), prompts(batch_size=8, samples_per_prompt=samples)).samples_per_prompt == samples


def test_an_estimate_is_the_gradient_on_the_batch() -> None:
    found = training()
    batch = found.batch(1)

    class Same(Problem):
        def noises(self, seed: int) -> torch.Tensor:
            return batch.noises

    same = Same(found.chain, batch.objective, batch.prompts).gradient(FirstOrder(2), 0)
    assert torch.equal(found.estimate(FirstOrder(2), 1), same)
    assert len(same) == found.size


def test_offloaded_activations_give_the_same_estimate() -> None:
    plain, offloaded = training(), training(offload_activations=True)
    assert torch.equal(plain.estimate(FirstOrder(2), 0), offloaded.estimate(FirstOrder(2), 0))


def test_a_reward_without_a_gradient_is_known_as_one() -> None:
    assert training().differentiable
    assert not training(reward=Hard()).differentiable


def test_running_statistics_begin_with_a_batch() -> None:
    scaled = Combine({"one": Level(), "other": Level()}, {"one": 1.0, "other": 0.5}, RunningZScore())
    before = {name: value.clone() for name, value in scaled.statistics().items()}
    training(reward=scaled)
    after = scaled.statistics()
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_every_evaluation_is_in_the_precision_of_the_training() -> None:
    inside, seen = [], []

    @contextmanager
    def precision() -> Iterator[None]:
        inside.append(True)
        yield
        inside.pop()

    class Watched(Level):
        def forward(self, samples: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
            seen.append(bool(inside))
            return super().forward(samples, prompts)

    scaled = Combine({"one": Watched(), "other": Level()}, {"one": 1.0, "other": 0.5}, RunningZScore())
    found = TrainingGradient(align(reward=scaled), prompts(batch_size=4), precision=precision)
    found.estimate(FirstOrder(2), 0)
    assert seen
    assert all(seen)


def test_the_memory_of_full_backpropagation_follows_from_two_steps() -> None:
    problem = TrainingGradient(align(), prompts(batch_size=64))
    full = peak_memory(problem, FirstOrder(AllSteps()))
    assert abs(predicted_full_memory(problem) / full - 1) < 0.01
    assert peak_memory(problem, FirstOrder(1)) < full
    assert available_bytes(torch.device("cpu")) > full
