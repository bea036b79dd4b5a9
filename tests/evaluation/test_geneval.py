"""GenEval's overall score is a mean over tasks, and not over images."""

import pytest
import torch

from rlr.evaluation import GenEvalTasks, SampleBatch, SampleSet
from rlr.rewards import GenEval
from tests.rewards.geneval.scenes import LINES, thing, write


def bright(images):
    """Finds a bench in bright images alone."""
    return [[thing("bench"), thing("sports ball")] if image.mean() > 127 else [] for image in images]


def test_the_mean_over_tasks_of_unequal_size(tmp_path):
    another = LINES[0] | {"prompt": "a photo of one bench"}
    reward = GenEval(write(tmp_path, [LINES[0], another, LINES[1]]), bright, lambda image, objects, name: [])
    metric, prompts = GenEvalTasks(reward), [LINES[0]["prompt"], another["prompt"], LINES[1]["prompt"]]
    # two samples a prompt: 1 and 0, 0 and 0 of the first task; 1 and 1 of the second
    light = torch.tensor([1.0, 0, 0, 0, 1, 1]).view(6, 1, 1, 1).expand(6, 3, 8, 8)
    metric.begin(SampleSet(prompts, 2))
    # in batches of any order
    for rows in ([4, 1], [0, 2, 3, 5]):
        metric.update(SampleBatch(rows, [prompts[row // 2] for row in rows], light[rows]))
    assert metric.compute().item() == pytest.approx((1 / 4 + 1) / 2)
    assert {name: value.item() for name, value in metric.parts().items()} == {"single_object": 0.25, "two_object": 1.0}
    assert metric.label == "GenEval_tasks"


def test_a_sample_without_a_score_counts_nowhere(tmp_path):
    reward = GenEval(write(tmp_path), bright, lambda image, objects, name: [])
    metric = GenEvalTasks(reward)
    metric.begin(SampleSet([LINES[0]["prompt"]], 3))
    metric.update(
        SampleBatch([0, 2], [LINES[0]["prompt"]] * 2, torch.stack([torch.ones(3, 8, 8), torch.zeros(3, 8, 8)]))
    )
    assert metric.compute().item() == 0.5
