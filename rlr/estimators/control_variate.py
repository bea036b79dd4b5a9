r"""A look-ahead control variate: it reduces the variance of the half-order term nearly to that of full backpropagation.

Let :math:`c(x_j) = R(\hat x_0(x_j))` be the reward of a prediction of the clean sample with frozen weights. For a segment
:math:`x_{j+h} \to x_j = M + \sigma z`, Gaussian integration by parts gives
:math:`E[c(x_j) \nabla_\theta \log \mathcal{N}(x_j; M, \sigma^2)] = E[(\partial c / \partial x_j)^\top \partial M / \partial
\theta]`, so

.. math:: \hat g = \lambda_\mathrm{ratio} \, (R - a \, c(x_j) - a' c(x_{j+h}) - a'' D_j - b) \,
    \nabla_\theta \log \mathcal{N}(x_j; M, \sigma^2)
    + \lambda_\mathrm{path} \, a \, \Bigl(\frac{\partial c}{\partial x_j}\Bigr)^\top \frac{\partial M}{\partial \theta}

is unbiased with :math:`\lambda_\mathrm{ratio} = \lambda_\mathrm{path} = 1` for all coefficients that do not depend on the sample's
own noise. The part of :math:`R` that :math:`c(x_j)` predicts moves from the **likelihood-ratio half**, which has a large
variance, to the **pathwise half**, which has a small one. A smaller :math:`\lambda_\mathrm{ratio}` trades variance for bias and
keeps the pathwise half whole.

Two more features have no pathwise half, because their product with the likelihood ratio has the mean 0:

* the value at the segment's start, :math:`c(x_{j+h})`, is known before the noise of the segment's end is drawn;
* the increments :math:`D_j = \sum_{u \leq j} M_u` of the later steps, :math:`M_u = \frac12 [c(\mu_u + \sigma_u z_u) -
  c(\mu_u - \sigma_u z_u)]`, are odd in the noise of a later step, so that :math:`E[D_j \mid x_j] = 0`.

The control variate processes the segments from the end of the chain to its start. The evaluation of the network in
:math:`x_j` that :math:`c(x_j)` needs is then the first evaluation of the replay of the next segment, and is made once.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from rlr.chain import Evaluation
from rlr.distributed import gather
from rlr.estimators.advantages import Baseline, Zero
from rlr.estimators.base import Term
from rlr.estimators.coefficients import Coefficients, Features, RunningRegression
from rlr.estimators.recent import Recent
from rlr.estimators.sample_clip import SampleClip
from rlr.estimators.segments import Segment
from rlr.estimators.values import OwnReward, Value
from rlr.rollout import Rollout


class LookAhead:
    r"""The control variate :math:`a \, c(x_j)`, with :math:`c` the value of the predicted clean sample.

    Args:
        coefficients: The coefficients :math:`a, a', a''`; by default
            :class:`~rlr.estimators.coefficients.RunningRegression`.
        ratio_weight: The weight :math:`\lambda_\mathrm{ratio} \geq 0` of the likelihood-ratio half; 0 leaves the pathwise half
            alone, which is biased.
        path_weight: The weight :math:`\lambda_\mathrm{path} \geq 0` of the pathwise half.
        stride: The largest number of steps of the chain that one step of the prediction :math:`\hat x_0(x_j)` covers, at least 1.
            The prediction has :math:`n = \lceil j / \mathrm{stride} \rceil` deterministic steps, at the cost of :math:`n - 1`
            passes forward and backward a segment. By default it has one step, which predicts little of the reward in early steps.
        start_value: Whether :math:`c(x_{j+h})` is a feature, at the cost of one more score of the first segment.
        increments: Whether :math:`D_j` is a feature, at the cost of one pass forward and one score a segment.
        value: The function :math:`c` of the prediction; by default the reward itself.
        separate: Whether the halves are terms of their own, named ``path`` and ``ratio``, which are logged and weighted apart by
            ``optimization.term_weights``, at the cost of one more pass backward a step.
        clip: Bounds the slope :math:`\partial c / \partial x_j` of each sample, which biases the estimate; None does not.
        prediction_steps: The largest number :math:`N` of steps of a prediction, at least 1, in place of ``stride``, which is then
            :math:`\lceil T / N \rceil` in a chain of :math:`T` steps: the cost of a segment does not grow with :math:`T`.

    Raises:
        ValueError: If a weight is negative, or both are 0, or ``stride`` or ``prediction_steps`` is less than 1, or both are
            given.
    """

    def __init__(
        self,
        coefficients: Coefficients | None = None,
        ratio_weight: float = 1.0,
        path_weight: float = 1.0,
        stride: int | None = None,
        start_value: bool = True,
        increments: bool = False,
        value: Value | None = None,
        separate: bool = False,
        clip: SampleClip | None = None,
        prediction_steps: int | None = None,
    ) -> None:
        if min(ratio_weight, path_weight) < 0 or not ratio_weight + path_weight > 0:
            raise ValueError(
                "LookAhead: expected ratio_weight and path_weight of at least 0, not both 0, got "
                f"{ratio_weight} and {path_weight}"
            )
        _check_prediction(stride, prediction_steps)
        self.coefficients = coefficients or RunningRegression()
        self.ratio_weight = ratio_weight
        self.path_weight = path_weight
        self.stride = stride
        self.prediction_steps = prediction_steps
        self.start_value = start_value
        self.increments = increments
        self.value = value or OwnReward()
        self.separate = separate
        self.clip = clip
        self.explained = ExplainedVariance()

    def terms(
        self, predictions: "Predictions", segments: Sequence[Segment], baseline: Baseline, weight: float = 1.0
    ) -> Iterator[Term]:
        r"""Yields the half-order term of each segment with the control variate, times ``weight``, from the end of the chain.

        Args:
            predictions: The predictions of the rollout, made for these segments.
            segments: The segments.
            baseline: Gives the :math:`b` that the coefficients leave to it.
            weight: A factor on the terms.
        """
        for segment in sorted(segments, key=lambda s: s.stop):
            ratio, path = self._halves(predictions, segment, baseline, weight)
            if not self.separate:
                yield Term("half_order", ratio + path, segment.steps)
            else:
                yield Term("path", path, segment.steps, retain_graph=True)
                yield Term("ratio", ratio, segment.steps)
            del ratio, path  # their graph must be gone before the next is built
        self.value.learn(predictions.rollout)

    def _halves(
        self, predictions: "Predictions", segment: Segment, baseline: Baseline, weight: float
    ) -> tuple[Tensor, Tensor]:
        """Returns the losses of the two halves of a segment's term, which share a graph."""
        rollout, j = predictions.rollout, segment.stop
        slope = predictions.slope(j)
        # before the replay, whose graph would else be alive during these passes
        first = predictions.evaluate(segment.start)
        features = self._features(predictions, segment)
        # without the likelihood ratio no advantage is used, and a batch may be one sample
        advantages, a = self.coefficients.advantages(
            j, rollout.rewards, features, baseline if self.ratio_weight else Zero()
        )
        rest = rollout.rewards - (a * features.values).sum(1)
        self.explained.add(j, baseline.deviations(rollout.rewards), baseline.deviations(rest))
        transition = rollout.replay(*segment, first=first)
        ratio = advantages * transition.log_prob(rollout.trajectory.states[j])
        path = a[:, 0] * (slope * transition.mean).flatten(1).sum(1)
        return -weight * self.ratio_weight * ratio.mean(), -weight * self.path_weight * path.mean()

    def _features(self, predictions: "Predictions", segment: Segment) -> Features:
        features = [(predictions.value(segment.stop), 1.0)]
        if self.start_value:
            features.append((predictions.value(segment.start), 0.0))
        if self.increments:
            features.append((predictions.increments(segment.stop), 1.0))
        values, prior = zip(*features, strict=True)
        return Features(torch.stack(values, 1), prior)

    def steps_from(self, j: int, steps: int) -> int:
        r"""Returns the number :math:`n = \lceil j / \mathrm{stride} \rceil` of steps of the prediction from :math:`x_j`.

        Args:
            j: The number of the state, at least 1.
            steps: The number :math:`T` of steps of the chain.
        """
        stride = self.stride if self.prediction_steps is None else math.ceil(steps / self.prediction_steps)
        return 1 if stride is None else math.ceil(j / stride)

    @property
    def differentiable(self) -> bool:
        """Whether it needs a differentiable reward."""
        return self.value.needs_gradient

    def metrics(self) -> dict[str, float]:
        """Returns the share of the reward's variance that the features explain, by log name."""
        return self.explained.metrics()

    def state_dict(self) -> dict[str, object]:
        """Returns the state that is kept from one update to the next."""
        clip = {"clip": self.clip.state_dict()} if self.clip else {}
        return {"coefficients": self.coefficients.state_dict(), "value": self.value.state_dict(), **clip}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restores what :meth:`state_dict` returned."""
        self.coefficients.load_state_dict(state["coefficients"])  # type: ignore[arg-type]
        self.value.load_state_dict(state["value"])  # type: ignore[arg-type]
        if self.clip:
            self.clip.load_state_dict(state["clip"])  # type: ignore[arg-type]


def _check_prediction(stride: int | None, prediction_steps: int | None) -> None:
    """Raises a ``ValueError`` if the steps of a prediction are given twice, or are fewer than 1."""
    for name, value in (("stride", stride), ("prediction_steps", prediction_steps)):
        if value is not None and value < 1:
            raise ValueError(f"LookAhead.{name}: expected at least 1, got {value}")
    if stride is not None and prediction_steps is not None:
        raise ValueError(
            f"LookAhead: expected stride or prediction_steps, got stride={stride} and prediction_steps={prediction_steps}; set "
            "one of them to None (null in a config)"
        )


class Predictions:
    r"""The values :math:`c(x_j)` and slopes :math:`\partial c / \partial x_j` of one rollout, each computed once.

    Args:
        control: The control variate.
        rollout: The rollout.
        segments: The segments whose terms will be asked for.
    """

    def __init__(self, control: LookAhead, rollout: Rollout, segments: Sequence[Segment]) -> None:
        self.control = control
        self.rollout = rollout
        self.stops = {segment.stop for segment in segments}
        self.starts = {segment.start for segment in segments} if control.start_value else set()
        self.score = control.value.of(rollout)
        self._values: dict[int, Tensor] = {}
        self._slopes: dict[int, Tensor] = {}
        self._mirrored: dict[int, Tensor] = {}

    def evaluate(self, t: int) -> Evaluation:
        r"""Evaluates the network in :math:`x_t` for a replay, and keeps what the control variate needs of :math:`c(x_t)`."""
        evaluation = self.rollout.evaluate(t)
        if t in self.stops:
            self._differentiate(evaluation, replayed=True)
        elif t in self.starts:
            self._values[t] = self._value(evaluation.x, t, evaluation.denoised)
        return evaluation

    def value(self, j: int) -> Tensor:
        r"""Returns :math:`c(x_j)`, with shape :math:`(B)`."""
        if j not in self._values:
            self._values[j] = self._value(self.rollout.trajectory.states[j], j)
        return self._values[j]

    def slope(self, j: int) -> Tensor:
        r"""Returns :math:`\partial c / \partial x_j`, with the shape of the state."""
        if j not in self._slopes:
            self._differentiate(self._unshared(j), replayed=False)
        return self._slopes[j]

    def increments(self, j: int) -> Tensor:
        r"""Returns :math:`D_j` over the stochastic steps :math:`u \leq j` whose :math:`c(x_{u-1})` is known, shape :math:`(B)`."""
        later = [i for i in self._values if i < j and i in self.stops]
        return sum((self._increment(i) for i in later), start=torch.zeros_like(self.value(j)))

    def _increment(self, i: int) -> Tensor:
        r"""Returns :math:`M_{i+1}`; the mirrored state is :math:`x_i - 2 \sigma_{i+1} z_i`."""
        if i not in self._mirrored:
            trajectory = self.rollout.trajectory
            x = trajectory.states[i] - 2 * self.rollout.chain.std(i + 1) * trajectory.noises[i]
            self._mirrored[i] = self._value(x, i)
        return (self._values[i] - self._mirrored[i]) / 2

    @torch.no_grad()
    def _value(self, x: Tensor, t: int, denoised: Tensor | None = None) -> Tensor:
        chain, condition = self.rollout.chain, self.rollout.trajectory.condition
        if denoised is None:
            denoised = chain.look_ahead(x, t, condition)
        return self.score(chain.refine(denoised, x, t, condition, self.control.steps_from(t, chain.steps)))

    def _unshared(self, j: int) -> Evaluation:
        if j > 0:
            return self.rollout.evaluate(j)
        x = self.rollout.trajectory.states[0].detach().requires_grad_()
        return Evaluation(0, x, x)

    @torch.enable_grad()
    def _differentiate(self, evaluation: Evaluation, replayed: bool) -> None:
        r"""Computes :math:`c` and its slope, and keeps the graph of the evaluation if it is to be ``replayed``."""
        t, chain, condition = evaluation.t, self.rollout.chain, self.rollout.trajectory.condition
        # two stages, so that the graph of the reward is freed and only that of the evaluation is kept
        x, denoised = (value.detach().requires_grad_() for value in (evaluation.x, evaluation.denoised))
        steps = self.control.steps_from(t, chain.steps)
        c = self.score(chain.refine(denoised, x, t, condition, steps) if t else denoised)
        by_x, by_denoised = torch.autograd.grad(c.sum(), (x, denoised), allow_unused=True)
        (slope,) = torch.autograd.grad(evaluation.denoised, evaluation.x, by_denoised, retain_graph=replayed)
        slope = slope if by_x is None else slope + by_x
        self._values[t] = c.detach()
        self._slopes[t] = slope if self.control.clip is None else self.control.clip(t, slope)


class ExplainedVariance:
    r"""The share of the reward's variance that the features of each state explain, over a window of rollouts.

    .. math:: 1 - \sum_i (E_i - \bar E_i)^2 \Big/ \sum_i (R_i - \bar R_i)^2, \qquad E_i = R_i - a_i^\top f_i,

    with the means :math:`\bar R_i, \bar E_i` over the samples that the baseline compares sample :math:`i` with: all, or those of
    its prompt. It is 0 of features that are 0, and negative where a feature adds variance.

    Args:
        window: The number of rollouts.
    """

    def __init__(self, window: int = 16) -> None:
        self.seen = Recent(window)

    def add(self, j: int, rewards: Tensor, rest: Tensor) -> None:
        r"""Adds a rollout.

        Args:
            j: The number of the state.
            rewards: The :math:`R_i - \bar R_i`, with shape :math:`(B)`.
            rest: The :math:`E_i - \bar E_i`, with shape :math:`(B)`.
        """
        squares = [gather(values).double().square().sum() for values in (rest, rewards)]
        self.seen.add(j, torch.stack(squares).cpu())

    def metrics(self) -> dict[str, float]:
        """Returns the shares by log name."""
        sums = {j: torch.stack(self.seen.of(j)).sum(0).tolist() for j in self.seen.states()}
        return {f"explained/{j}": 1 - left / whole for j, (left, whole) in sums.items() if whole > 0}
