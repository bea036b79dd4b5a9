"""Clipping each sample's gradient: bounded norms, the same directions, and nothing else."""

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import Estimator, FirstOrder, HalfOrderRLR, LookAhead, SampleClip
from rlr.samplers import DDIM
from tests.estimators.problems import Curved, estimate, wavy


def gradients(seed: int, n: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.rand(n, 1, 1, generator=generator, dtype=torch.float64) ** 4 * 100
    return scale * torch.randn(n, 3, 2, generator=generator, dtype=torch.float64)


def norms(g: Tensor) -> Tensor:
    return g.flatten(1).norm(dim=1)


def test_norms_are_bounded_by_the_quantile_of_earlier_rollouts_and_directions_stay() -> None:
    clip = SampleClip(quantile=0.5, window=2)
    for seed in range(3):
        clip(4, gradients(seed))
    limit = torch.cat([norms(gradients(1)), norms(gradients(2))]).quantile(0.5)
    g = gradients(3)
    clipped = clip(4, g)
    torch.testing.assert_close(norms(clipped), norms(g).clamp(max=limit))
    torch.testing.assert_close(clipped / norms(clipped).view(-1, 1, 1), g / norms(g).view(-1, 1, 1))
    below = norms(g) <= limit
    assert 0 < below.sum() < len(g)
    assert torch.equal(clipped[below], g[below])


def test_gradients_of_zero_are_no_measure_of_the_norms() -> None:
    clip, other = SampleClip(), SampleClip()
    # as those of a value that is fitted to earlier rollouts, before the first
    clip(1, torch.zeros(8, 3, 2, dtype=torch.float64))
    for seed in range(2):
        assert torch.equal(clip(1, gradients(seed)), other(1, gradients(seed)))


def test_each_state_has_its_own_quantile() -> None:
    clip = SampleClip()
    clip(1, 1e-3 * gradients(0))
    clip(2, gradients(0))
    assert norms(clip(1, gradients(1))).max() < 1e-2 * norms(clip(2, gradients(1))).max()


def test_without_outliers_it_changes_nothing_and_with_one_it_changes_the_direction() -> None:
    chain = Chain(Curved(), DDIM(5, eta=1.0))

    def cosine(estimator: Estimator, other: Estimator, reward) -> float:  # type: ignore[no-untyped-def]
        a, b = (estimate(e, chain, reward, 16, 0) for e in (estimator, other))
        return torch.nn.functional.cosine_similarity(a, b, 0).item()

    wide, clipped = FirstOrder(3, clip=SampleClip(1.0)), FirstOrder(3, clip=SampleClip(0.5))
    # the first rollout is its own reference, so the largest norm of all clips nothing
    torch.testing.assert_close(
        estimate(wide, chain, wavy, 16, 0), estimate(FirstOrder(3), chain, wavy, 16, 0), rtol=1e-10, atol=1e-12
    )
    assert cosine(clipped, FirstOrder(3), wavy) > 0.9

    def cliff(x: Tensor) -> Tensor:
        return wavy(x) + 1e3 * torch.relu(x[:, 0] - x[:, 0].detach().max() + 1e-9)

    # one sample in sixteen has a gradient of a thousand
    assert abs(cosine(FirstOrder(3, clip=SampleClip(0.5)), FirstOrder(3), cliff)) < 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda: FirstOrder(2, clip=SampleClip()),
        lambda: HalfOrderRLR(1, None, 2, control=LookAhead(clip=SampleClip()), clip=SampleClip()),
    ],
    ids=["first order", "half-order RLR"],
)
def test_a_resumed_run_clips_as_the_uninterrupted_one(make) -> None:  # type: ignore[no-untyped-def]
    chain = Chain(Curved(), DDIM(5, eta=1.0))
    whole, part = make(), make()
    for seed in range(3):
        estimate(whole, chain, wavy, 8, seed)
    part.load_state_dict(whole.state_dict())
    assert torch.equal(estimate(whole, chain, wavy, 8, 3), estimate(part, chain, wavy, 8, 3))
    assert not torch.equal(estimate(make(), chain, wavy, 8, 3), estimate(part, chain, wavy, 8, 3))


@pytest.mark.parametrize("wrong", [{"quantile": 0.0}, {"quantile": 1.5}, {"window": 0}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"expected quantile in \(0, 1\] and window >= 1"):
        SampleClip(**wrong)  # type: ignore[arg-type]
