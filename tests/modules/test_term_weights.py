"""Weights of the kinds of terms: near the best constant ones, and the same after a resume."""

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators import RLR, AllSteps, Estimator, FirstOrder, HalfOrderRLR, LookAhead
from rlr.modules.term_weights import Shrinkage
from rlr.samplers import DDIM
from tests.estimators.problems import Curved, estimate, rollout, wavy


def kinds(estimator: Estimator, chain: Chain, seed: int, batch: int = 16) -> dict[str, list[Tensor]]:
    """Returns the gradients of each kind of term of an update, as the updater has them."""
    found: dict[str, list[Tensor]] = {}
    for term in estimator.terms(rollout(estimator, chain, wavy, batch, seed)):
        chain.zero_grad()
        term.backward()
        new = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in chain.parameters()]
        old = found.get(term.name, [torch.zeros_like(g) for g in new])
        found[term.name] = [a + b for a, b in zip(old, new, strict=True)]
    return found


def flat(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in gradients])


def errors(draws: Tensor, weights: Tensor, exact: Tensor) -> float:
    r"""Returns E|Σ w ĝ − g|² over draws of shape (n, K, d)."""
    return (torch.einsum("nkd,k->nd", draws, weights) - exact).square().sum(1).mean().item()


LOOK_AHEAD = partial(HalfOrderRLR, 1, None, control=LookAhead(separate=True)), ("first_order", "path", "ratio")
THREE_ORDERS = partial(RLR, 2), ("first_order", "half_order", "zeroth_order")


@pytest.mark.parametrize(("make", "names"), [LOOK_AHEAD, THREE_ORDERS], ids=["look-ahead", "RLR"])
def test_the_error_is_within_a_tenth_of_that_of_the_best_constant_weights(
    make: Callable[[], Estimator], names: tuple[str, ...]
) -> None:
    chain = Chain(Curved(), DDIM(6, eta=1.0))
    full = [estimate(FirstOrder(AllSteps()), chain, wavy, 256, seed) for seed in range(150)]
    exact = -torch.stack(full).mean(0)
    estimator, shrinkage, draws = make(), Shrinkage(decay=0.995), []
    for seed in range(240):
        found = kinds(estimator, chain, seed)
        draws.append(torch.stack([flat(found[name]) for name in names]))
        shrinkage.update(found)
    stacked = torch.stack(draws)
    s = torch.einsum("nkd,nld->kl", stacked, stacked) / len(stacked)
    best = torch.linalg.solve(s, stacked.mean(0) @ exact)
    learned = torch.tensor([shrinkage.weights()[name] for name in names]).double()
    least, reached, unweighted = (errors(stacked, w, exact) for w in (best, learned, torch.ones(3).double()))
    assert reached < 1.1 * least
    # the ratio half, and zeroth order, are mostly noise in a batch of 16
    assert reached < 0.8 * unweighted
    assert learned[2] < 0.5 < learned[0]


def test_a_kind_without_noise_keeps_its_weight_and_noise_loses_it() -> None:
    generator = torch.Generator().manual_seed(0)
    shrinkage = Shrinkage()
    signal = torch.randn(50, generator=generator)
    for _ in range(200):
        shrinkage.update({"quiet": [signal], "loud": [3 * torch.randn(50, generator=generator)]})
    weights = shrinkage.weights()
    assert weights["quiet"] == pytest.approx(1.0, abs=0.02)
    assert weights["loud"] < 0.1


def test_the_weights_of_an_update_do_not_depend_on_its_own_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    shrinkage = Shrinkage(warmup=2)
    for _ in range(5):
        shrinkage.update({"one": [torch.randn(4, generator=generator)], "two": [torch.randn(4, generator=generator)]})
    before = shrinkage.weights()
    assert shrinkage.weights() == before
    shrinkage.update({"one": [torch.full((4,), 9.0)], "two": [torch.zeros(4)]})
    assert shrinkage.weights() != before


def test_the_first_updates_and_new_kinds_have_the_weight_1() -> None:
    shrinkage = Shrinkage(warmup=3)
    for _ in range(2):
        shrinkage.update({"one": [torch.randn(4, generator=torch.Generator().manual_seed(1))]})
        assert shrinkage.weights() == {"one": 1.0}
    shrinkage.update({"one": [torch.ones(4)], "two": [torch.ones(4)]})
    assert list(shrinkage.weights()) == ["one", "two"]


def test_a_resumed_run_has_the_same_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [{name: [torch.randn(3, generator=generator) + 1] for name in ("one", "two")} for _ in range(30)]
    whole, part = Shrinkage(), Shrinkage()
    for one in draws[:15]:
        whole.update(one)
    part.load_state_dict(whole.state_dict())
    for one in draws[15:]:
        whole.update(one)
        part.update(one)
    assert part.weights() == whole.weights()


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"mean_decay": -0.1}, {"warmup": 1}, {"limit": 0.5}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected decay and mean_decay in"):
        Shrinkage(**wrong)  # type: ignore[arg-type]
