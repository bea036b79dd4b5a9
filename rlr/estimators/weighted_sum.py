r"""The weighted sum of several estimators on the same rollouts, :math:`\hat g = \sum_k w_k \hat g_k`.

It combines terms of different kinds: with ``HalfOrderRLR(control=LookAhead(ratio_weight=0))`` and ``AWM`` the pathwise half of the
look-ahead term, which has a small variance and is biased, and a regression on noised final samples, which does not backpropagate
the reward. Where the summands cover disjoint sets of steps without bias and all weights are 1, so does the sum.
"""

from collections.abc import Iterator, Sequence

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term, TermSource, no_terms
from rlr.rollout import Rollout


class Sum(Estimator):
    r"""Adds the terms of several estimators. Each makes one update a round.

    All summands learn from rollouts of the current weights. Put those first that backpropagate the reward: the samples that they
    score are not scored again.

    Args:
        estimators: The summands, at least two.
        weights: Their weights :math:`w_k > 0`; by default 1.

    Raises:
        ValueError: If there are fewer than two summands, the weights do not fit them, or a summand makes several updates a round
            or needs rollouts of its own, as DDPO, one-point zeroth order and the methods with an old policy do.
    """

    shares_rollouts = False

    def __init__(self, estimators: list[Estimator], weights: list[float] | None = None) -> None:
        weights = [1.0] * len(estimators) if weights is None else weights
        if len(estimators) < 2 or len(weights) != len(estimators) or not min(weights) > 0:
            raise ValueError(
                f"Sum: expected at least two estimators and as many positive weights, got {len(estimators)} and {weights}"
            )
        for estimator in estimators:
            name, updates = type(estimator).__name__, estimator.updates_per_round
            if updates > 1:
                raise ValueError(
                    f"Sum: expected estimators with one update a round, got {name} with {updates}; set its num_minibatches "
                    "and epochs to 1"
                )
            if not estimator.shares_rollouts:
                raise ValueError(
                    f"Sum: expected estimators that share rollouts, got {name}, which needs its own; use AWM"
                )
        self.estimators = estimators
        self.weights = weights

    @property
    def differentiable(self) -> bool:
        return any(estimator.differentiable for estimator in self.estimators)

    def check(self, chain: Chain) -> None:
        for estimator in self.estimators:
            estimator.check(chain)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        for estimator, weight in zip(self.estimators, self.weights, strict=True):
            for term in estimator.terms(rollout):
                yield term.scaled(weight)
                del term  # its graph must be gone before the next is built

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        """Yields the terms of the one update; afterwards every summand ends its round."""
        rounds = [estimator.updates(rollouts) for estimator in self.estimators]
        yield self._summed(rounds, rollouts, penalty)
        for rest in rounds:
            for terms in rest:
                assert not list(terms)

    def _summed(
        self, rounds: Sequence[Iterator[Iterator[Term]]], rollouts: Sequence[Rollout], penalty: TermSource
    ) -> Iterator[Term]:
        # the terms of a summand are asked for only when those before it are made, so that it finds the scores
        for updates, weight in zip(rounds, self.weights, strict=True):
            for term in next(updates, iter(())):
                yield term.scaled(weight)
                del term  # its graph must be gone before the next is built
        for rollout in rollouts:
            for term in penalty(rollout):
                yield term.scaled(1 / len(rollouts))
                del term

    def metrics(self) -> dict[str, float]:
        return {name: value for estimator in self.estimators for name, value in estimator.metrics().items()}

    def state_dict(self) -> dict[str, object]:
        return {"estimators": [estimator.state_dict() for estimator in self.estimators]}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for estimator, part in zip(self.estimators, state["estimators"], strict=True):  # type: ignore[call-overload]
            estimator.load_state_dict(part)
