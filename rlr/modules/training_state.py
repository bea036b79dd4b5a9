"""What a checkpoint of an alignment holds beside the trained weights, and how a resumed run takes it up."""

import warnings
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rlr.estimators.base import Estimator
from rlr.estimators.divergence import Penalty
from rlr.modules.checkpoint import check_like
from rlr.modules.progress import Progress
from rlr.modules.randomness import random_state, set_random_state
from rlr.modules.round import Round, Sampler
from rlr.modules.term_weights import Shrinkage
from rlr.modules.update import Updater
from rlr.rewards.base import Reward

STATE = "alignment"
"""The key under which a checkpoint holds this state."""
VERSION = 2
"""The version of this state; version 1 had no number."""
REMEDY = "resume with the estimator that the run began with, or begin a new run"


class TrainingState:
    """The state of a run of an alignment.

    It is taken up in three steps: :meth:`load` when the checkpoint is read, in every command; :meth:`resume` before training,
    since sampling needs no estimator; :meth:`restore` in the first training step, when the run is built.

    Args:
        estimator: The estimator, which may remember something from one update to the next.
        reward: The reward, which may have running statistics.
        updater: The updater, which counts skipped updates.
        penalty: The penalty, which may have a reference of its own.
    """

    def __init__(self, estimator: Estimator, reward: Reward, updater: Updater, penalty: Penalty | None = None) -> None:
        self.estimator = estimator
        self.reward = reward
        self.updater = updater
        self.penalty = penalty
        self.progress = Progress()
        self.round = Round()
        self._read: Mapping[str, Any] = {}

    @property
    def _shrinkage(self) -> Shrinkage | None:
        return self.updater.optimization.term_weights

    def state_dict(self) -> dict[str, Any]:
        """Returns the state. All ranks call it together."""
        return {
            "version": VERSION,
            "progress": asdict(self.progress),
            "failures": self.updater.failures,
            "estimator_class": type(self.estimator).__name__,
            "estimator": self.estimator.state_dict(),
            "term_weights": self._shrinkage.state_dict() if self._shrinkage else {},
            "reward": self.reward.statistics(),
            "penalty": self.penalty.state_dict() if self.penalty else {},
            "random": random_state(),
            "round": self.round.state(),
        }

    def load(self, state: Any, origin: str) -> None:
        """Takes up the progress of a run.

        Args:
            state: What :meth:`state_dict` returned; None where the checkpoint has no such state.
            origin: What a message calls the checkpoint.

        Raises:
            ValueError: If the checkpoint is of another version or module, or a value has another type.
        """
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(
                f"{origin} is no checkpoint of this version of Alignment; expected version {VERSION}, got "
                f"{state.get('version', 1) if isinstance(state, dict) else 'one of another module'}; train again, or use the "
                "version of rlr that wrote it"
            )
        check_like({"progress": asdict(self.progress), "estimator_class": ""}, state, origin, STATE)
        self.progress = Progress(**state["progress"])
        self._read = state

    def resume(self, origin: str) -> None:
        """Takes up what training alone needs.

        Raises:
            ValueError: If the checkpoint was written with another estimator of the same class, or a value has another type.
        """
        if not self._read:
            return
        # a checkpoint may be older than the weights of terms and the state of a penalty, and its estimator checks its own state
        later = ("term_weights", "penalty")
        expected = {name: value for name, value in self.state_dict().items() if name not in later}
        check_like({**expected, "estimator": {}}, self._read, origin, STATE)
        written, own = self._read["estimator_class"], type(self.estimator).__name__
        if written == own:
            self._resume_estimator(origin)
        else:
            warnings.warn(
                f"{origin} was written with the estimator {written}; the run continues with the estimator {own}, which starts "
                "without a state",
                stacklevel=2,
            )
        self.reward.load_statistics(self._read["reward"])
        if self.penalty:
            self.penalty.load_state_dict(self._read.get("penalty", {}))
        self.updater.failures = self._read["failures"]

    def _resume_estimator(self, origin: str) -> None:
        """Takes up what belongs to the estimator: its state, and the moments of its terms."""
        try:
            self.estimator.load_state_dict(self._read["estimator"])
        except KeyError as error:
            raise ValueError(
                f"{origin} was written with another {type(self.estimator).__name__}: it holds no state {error}, which this run's "
                f"needs; {REMEDY}"
            ) from error
        if self._shrinkage and (moments := self._read.get("term_weights")):
            self._shrinkage.load_state_dict(moments)

    def restore(self, sample: Sampler) -> None:
        """Takes up, once, what building the run has used up or dropped: random states, and the rollouts of a round.

        Args:
            sample: Samples the rollouts of an incomplete round again.
        """
        if self._read:
            state, self._read = self._read, {}
            set_random_state(state["random"])
            self.round.restore(state["round"], sample)
