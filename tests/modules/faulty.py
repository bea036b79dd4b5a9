from collections.abc import Sequence

from torch import Tensor

from tests.modules.toy import Level


class Faulty(Level):
    """A reward with a bug."""

    def forward(self, samples: Tensor, prompts: Sequence[str]) -> Tensor:
        return super().forward(samples, prompts) * (1 // 0)
