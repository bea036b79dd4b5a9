"""What an alignment checks before it trains."""

import warnings

from lightning.pytorch import Trainer
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision

from rlr.chain import Chain
from rlr.estimators.base import Estimator
from rlr.estimators.divergence import Penalty
from rlr.models.base import DiffusionModel
from rlr.rewards.base import Reward
from rlr.scoring import Scoring


def check_parts(chain: Chain, reward: Reward, estimator: Estimator, penalty: Penalty | None) -> None:
    """Checks that the parts of an alignment fit each other.

    Raises:
        ValueError: If they do not; the message names the remedy.
    """
    frames = chain.model.size.frames
    reward.check(video=frames is not None)
    if frames is not None:
        reward.select_frames(frames, 0)  # a choice of frames that do not exist fails here and not in training
    estimator.check(chain)
    if penalty:
        penalty.check(chain)
        if penalty.full and estimator.updates_per_round > 1:
            raise ValueError(
                f"penalty.full needs rollouts of the present weights, and {type(estimator).__name__} makes "
                f"{estimator.updates_per_round} updates of a round; set penalty.full to false"
            )


def check_training(model: DiffusionModel, reward: Reward, estimator: Estimator, trainer: Trainer) -> None:
    """Checks that a model can be trained; to sample from a frozen model, and to score by any reward, is fine.

    Raises:
        ValueError: If the model has no trainable weights, the reward has no gradient and the estimator needs one, or the
            precision would lose updates.
    """
    if estimator.differentiable and not reward.differentiable:
        raise ValueError(
            f"{type(estimator).__name__} as configured backpropagates the reward, and {reward.label} has no "
            "gradient; use a differentiable reward, or an estimator of half- and zeroth-order terms alone, such as "
            "HalfOrder without control, or with LookAhead(value=StandIn(…)) or LookAhead(value=Critic(…)) for its control"
        )
    if not model.trainable:
        raise ValueError(f"{type(model).__name__} has no trainable weights; add a LoRA to it, or unfreeze weights")
    _check_precision(model, trainer)
    updates, end = estimator.updates_per_round, trainer.max_steps
    if end > 0 and end % updates:
        warnings.warn(
            f"trainer.max_steps={end} ends inside a round of {updates} updates, and a run that is resumed there does not "
            f"make the rest of the round; set max_steps to a multiple of {updates}",
            stacklevel=3,
        )


def check_scoring(scoring: Scoring, estimator: Estimator, trainer: Trainer) -> None:
    """Checks that scores can be computed in a thread of their own.

    Raises:
        ValueError: If the estimator needs the gradient of the reward, or the precision changes the default type of the
            process within a training step.
    """
    if not scoring.ahead:
        return
    name = type(scoring).__name__
    if estimator.differentiable:
        raise ValueError(
            f"model.scoring: {name} expects an estimator that needs no gradient of the reward, found {type(estimator).__name__} "
            "as configured, which does; leave scoring out, or use half- and zeroth-order terms alone"
        )
    if isinstance(trainer.precision_plugin, HalfPrecision | DoublePrecision):
        raise ValueError(
            f"model.scoring: {name} expects a precision that keeps float32 as the default type, found trainer.precision "
            f"{trainer.precision}; set it to 32-true, 16-mixed or bf16-mixed, or leave scoring out"
        )


def _check_precision(model: DiffusionModel, trainer: Trainer) -> None:
    """Refuses a precision that rounds the frozen weights where the trained ones are the network's own."""
    # a model that can compute as before the training adds its trained weights to a network, as a LoRA does
    if isinstance(trainer.precision_plugin, HalfPrecision) and not model.has_reference:
        precision = trainer.precision
        raise ValueError(
            f"trainer.precision: {precision} rounds the network, and {type(model).__name__} trains weights of the network "
            f"itself, whose updates would be lost; set it to {precision.replace('true', 'mixed')}, or train a LoRA"
        )
