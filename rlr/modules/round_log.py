"""What a round of rollouts logs, by log name."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from rlr.estimators.base import Estimator
from rlr.estimators.divergence import path_divergence
from rlr.estimators.groups import Groups, group_metrics
from rlr.modules.log_names import score_means
from rlr.modules.profiler import Profiler
from rlr.modules.progress import Progress
from rlr.modules.update import StepReport
from rlr.rewards.base import Reward, Scores
from rlr.rollout import Rollout


@dataclass(frozen=True)
class RoundLog:
    """The measurements of a round.

    Args:
        rollouts: The rollouts of this rank.
        scores: Their scores.
        report: What the last update of the round did.
        profiler: What the sections of the round cost.
    """

    rollouts: Sequence[Rollout]
    scores: Scores
    report: StepReport
    profiler: Profiler

    def __len__(self) -> int:
        """Returns the number of samples of this rank."""
        return len(self.scores.values)

    def rewards(self, reward: Reward) -> dict[str, Tensor]:
        """Returns mean and standard deviation of the rewards, and the means under the reward's own names."""
        values = self.scores.values
        means = {"mean": values.mean(), "std": values.std() if len(self) > 1 else values.new_zeros(())}
        return {f"reward/{name}": value for name, value in (means | score_means(reward, self.scores)).items()}

    def shared(self, estimator: Estimator) -> dict[str, float | Tensor]:
        """Returns what is averaged over ranks: metrics of terms, estimator and groups. All ranks call it together."""
        groups = Groups.of_round([r.prompts for r in self.rollouts], [r.rewards for r in self.rollouts])
        return {**self.report.terms, **estimator.metrics(), **group_metrics(groups)}

    def divergence(self) -> dict[str, Tensor]:
        """Measures the divergence of the last rollout's paths from those of the base model."""
        with self.profiler.section("kl"):
            return {"kl/path": path_divergence(self.rollouts[-1]).mean()}

    def own(self, progress: Progress, samples: int) -> dict[str, float | Tensor]:
        """Returns what is not averaged: gradients and costs of this rank, and counts, which are the same on all ranks.

        Args:
            progress: How far the run has come.
            samples: The samples of the round on all ranks together.
        """
        counts = {name: float(getattr(progress, name)) for name in ("updates", "samples", "reward_calls")}
        speed = {"samples_per_second": samples / sum(self.profiler.seconds.values())}
        return {**self.report.gradients, **dict(self.profiler.metrics()), **counts, **speed}
