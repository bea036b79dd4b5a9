"""The error of a direction: scaling does not change it, and it has the value that follows from mean and covariance."""

import pytest
import torch

from rlr.analysis.accuracy import Reference, accuracy
from rlr.analysis.direction import Direction, direction

G = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)


def found(mean: torch.Tensor, spread: float, count: int = 2000, scaled: bool = True) -> Direction | None:
    generator = torch.Generator().manual_seed(0)
    draws = mean + spread * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    reference = Reference.exact(G, G)
    return direction(draws, reference, accuracy(draws, reference), scaled)


def test_an_unbiased_estimator_has_no_error_but_its_variance() -> None:
    one = found(G, 5.0)
    assert one is not None
    assert one.bias == 0
    assert one.variance == pytest.approx(3, rel=0.1)
    assert one.cosine(1) == pytest.approx(0.5, rel=0.1)
    assert one.cosine(1e9) == pytest.approx(1)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_the_bias_of_a_direction_is_the_tangent_of_the_angle(scale: float) -> None:
    # 5 along g and 5 across it: 45°
    across = torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64)
    one = found(scale * (G + across), scale * 2.0)
    assert one is not None
    assert one.bias == pytest.approx(1, rel=0.1)
    assert one.variance == pytest.approx(3 * 4 / 25, rel=0.1)
    assert one.cosine(1e9) == pytest.approx(0.5**0.5, rel=0.05)


def test_a_bias_that_is_found_is_larger_than_the_resolution() -> None:
    across = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    few, many = found(G + across, 3.0, 20), found(G + across, 3.0, 4000)
    assert few is not None
    assert many is not None
    assert few.bias == 0
    assert few.resolution > 1 / 25
    assert many.bias == pytest.approx(1 / 25, rel=0.4)
    assert many.resolution < many.bias


def test_where_estimates_have_no_scale_it_is_measured_however_near_to_one_it_is() -> None:
    # the scale is known to 0.2, so that it is not distinguished from 1
    one, other = found(1.2 * G, 10.0, 100), found(1.2 * G, 10.0, 100, scaled=False)
    assert one is not None
    assert other is not None
    assert one.variance == pytest.approx(3 * 100 / 25, rel=0.2)
    share = (one.variance / other.variance) ** 0.5
    assert share == pytest.approx(1.2, abs=0.6)
    assert abs(share - 1) > 0.01


def test_the_uncertainty_of_the_variance_is_that_of_repeated_measurements() -> None:
    generator = torch.Generator().manual_seed(1)
    reference, variances, stated = Reference.exact(G, G), [], []
    for _ in range(200):
        draws = 2 * G + 5 * torch.randn(100, 3, generator=generator, dtype=torch.float64)
        one = direction(draws, reference, accuracy(draws, reference))
        assert one is not None
        variances.append(one.variance)
        stated.append(one.uncertainty)
    relative = torch.tensor(variances).std() / torch.tensor(variances).mean()
    assert torch.tensor(stated).mean() == pytest.approx(relative.item(), rel=0.2)


def test_a_mean_without_a_part_along_the_gradient_has_no_direction() -> None:
    assert found(-G, 1.0) is None
    assert found(torch.zeros(3, dtype=torch.float64), 0.1) is None
