r"""Antithetic noise: the samples :math:`2 i` and :math:`2 i + 1` have the noises :math:`z` and :math:`-z`.

Both are samples of the chain, because :math:`-z` is as normal as :math:`z`, so the mean of every estimate stays what it is. The
variance of the mean of a pair is :math:`1 + \rho` times that of two independent samples, where :math:`\rho` is the correlation of
the estimates of the pair: -1 for the part of an estimate that is odd in the noise, 1 for the part that is even. It helps first
order and pathwise terms, whose estimates are nearly odd where the chain is nearly affine and the reward nearly quadratic. It
does not help likelihood ratios of a reward that is nearly linear: their product is even.

A baseline that averages other samples must leave out the whole pair, because the reward of the other one depends on the same noise:
``LeaveOneOut(together=2)``. With the other sample of the pair among them, an estimate is biased.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.chain import Chain
from rlr.estimators.base import Estimator, Term, TermSource, no_terms
from rlr.estimators.half_order import HalfOrder
from rlr.estimators.parts import parts
from rlr.rollout import Objective, Rollout


class Antithetic(Estimator):
    r"""Another estimator on pairs of samples of one prompt, with noises of opposite sign.

    Each batch holds whole pairs, so that the noise of a sample still follows from its number in the run alone.

    References:
        | A New Monte Carlo Technique: Antithetic Variates (Hammersley & Morton, 1956)

    Args:
        estimator: The estimator. Its baseline, where it has one that averages other samples, leaves out two of them together.
    """

    shares_rollouts = False

    def __init__(self, estimator: Estimator) -> None:
        self.estimator = estimator

    @property
    def differentiable(self) -> bool:
        return self.estimator.differentiable

    @property
    def updates_per_round(self) -> int:
        return self.estimator.updates_per_round

    def check(self, chain: Chain) -> None:
        """Checks the estimator and its half orders, which must not use one sample of a pair for the other."""
        self.estimator.check(chain)
        for part in parts(self.estimator):
            if isinstance(part, HalfOrder):
                check_pairs(part)

    def rollout(
        self, chain: Chain, prompts: Sequence[str], noises: Tensor, objective: Objective, seed: int = 0
    ) -> Rollout:
        """Returns a recorded rollout; every second noise is replaced by minus the one before it.

        Raises:
            ValueError: If the batch does not consist of pairs of one prompt.
        """
        if len(prompts) % 2 or list(prompts[::2]) != list(prompts[1::2]):
            raise ValueError(
                f"Antithetic: expected a batch of pairs of samples of one prompt side by side, got {len(prompts)} samples of "
                f"{len(set(prompts))} prompts; set data.samples_per_prompt to an even number"
            )
        return self.estimator.rollout(chain, prompts, mirrored(noises), objective, seed)

    def terms(self, rollout: Rollout) -> Iterator[Term]:
        yield from self.estimator.terms(rollout)

    def updates(self, rollouts: Sequence[Rollout], penalty: TermSource = no_terms) -> Iterator[Iterator[Term]]:
        yield from self.estimator.updates(rollouts, penalty)

    def metrics(self) -> dict[str, float]:
        return self.estimator.metrics()

    def state_dict(self) -> dict[str, object]:
        return {"estimator": self.estimator.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.estimator.load_state_dict(state["estimator"])  # type: ignore[arg-type]


def check_pairs(half: HalfOrder) -> None:
    """Raises a ``ValueError`` if the likelihood ratio of a sample is multiplied by what depends on the other of its pair."""
    control, baseline = half.control, half.baseline
    if control is not None and control.coefficients.within_batch:
        raise ValueError(
            f"Antithetic: {type(control.coefficients).__name__} fits the coefficients of a sample on the other one of its pair, "
            "which has the same noise, and biases the estimate; use RunningRegression"
        )
    together = None if control is not None and not control.ratio_weight else baseline.together
    if together is not None and together % 2:
        raise ValueError(
            f"Antithetic: expected a baseline that leaves out the pairs of samples together, found {type(baseline).__name__} with "
            f"together={together}, which biases the estimate; set baseline: {{class_path: {type(baseline).__name__}, init_args: "
            "{together: 2}}, or use RunningMean"
        )


def mirrored(noises: Tensor) -> Tensor:
    r"""Returns noises in which every second sample has minus the noise of the one before it, with shape :math:`(T + 1, B, *)`."""
    z = noises[:, ::2]
    return torch.stack([z, -z], 2).flatten(1, 2)
