"""A metric has a name in tables and logs, whether or not its class states one."""

from rlr.evaluation.metrics import Metric, RewardMetric
from rlr.rewards import Brightness


class Contrast(Metric):
    def measure(self, batch):
        return batch.pixels.flatten(1).std(1)


class Named(Contrast):
    label = "contrast of pixels"


def test_a_metric_is_called_by_its_label_or_by_its_class():
    reward = Brightness()
    assert [metric.label for metric in (Contrast(), Named(), RewardMetric(reward))] == [
        "Contrast",
        "contrast of pixels",
        reward.label,
    ]
