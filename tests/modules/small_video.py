"""A text-to-video model in training, small enough for laws about its training."""

import pytest

from rlr.models.videocrafter.network import UNetConfig
from rlr.models.videocrafter.text import TextTower
from rlr.modules.pretraining import video
from rlr.world.tokenizer import LENGTH

CONFIG = UNetConfig(16, (1, 2), 1, (1,), num_head_channels=8, context_dim=16, norm_groups=8)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every :class:`~rlr.modules.pretraining.video.VideoDenoiser` small."""
    monkeypatch.setattr(video, "config", lambda: CONFIG)
    monkeypatch.setattr(
        video,
        "text_tower",
        lambda vocabulary: TextTower(vocabulary, width=16, heads=2, layers=2, length=LENGTH, mlp_ratio=2.0),
    )
