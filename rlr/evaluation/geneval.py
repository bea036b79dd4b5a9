"""GenEval's overall score."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from rlr.evaluation.metrics import RewardMetric
from rlr.rewards.geneval.reward import GenEval


class GenEvalTasks(RewardMetric):
    r"""The benchmark's score: the mean over tasks of the mean over the images of a task.

    Tasks have unequal numbers of prompts, so it is not the mean over images. The score of each task is a part, by its name, such
    as ``counting``. Published numbers are of the benchmark's 553 prompts with four images each.

    Args:
        reward: The reward, with the rule ``Correct`` for numbers to compare with published ones.

    References:
        | https://github.com/djghosh13/geneval, ``evaluation/summary_scores.py``
    """

    per_sample = False

    def __init__(self, reward: GenEval) -> None:
        super().__init__(reward)
        self.tag_of = {prompt: check.tag for prompt, check in reward.checks.items()}
        self._tasks: dict[str, Tensor] = {}

    @property
    def label(self) -> str:
        return "GenEval_tasks"

    def reduce(self, values: Tensor) -> Tensor:
        tags = [self.tag_of[prompt.strip()] for prompt in self._samples.prompts]
        self._tasks = by_task(values, tags)
        return sum(self._tasks.values(), start=values.new_zeros(())) / len(self._tasks)

    def parts(self) -> Mapping[str, Tensor]:
        return self._tasks


def by_task(values: Tensor, tags: Sequence[str]) -> dict[str, Tensor]:
    r"""Returns the mean of each task, in the order of their first prompts.

    Args:
        values: The scores, with shape :math:`(N, S)`: prompts, samples; NaN for a sample without a score.
        tags: The task of each prompt.
    """
    return {tag: values[[k for k, other in enumerate(tags) if other == tag]].nanmean() for tag in dict.fromkeys(tags)}
