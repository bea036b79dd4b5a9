"""All the memory that training takes: weights, a round of an estimator, the libraries."""

from collections.abc import Mapping
from functools import cached_property

import torch

from rlr.analysis.footprint.fake import Fake
from rlr.analysis.footprint.texts import Texts, emptied_texts, size_of
from rlr.analysis.footprint.training import PROMPT, Peak, Training
from rlr.estimators.base import Estimator
from rlr.models.wrapper import unwrap
from rlr.modules.alignment import Alignment
from rlr.modules.memory import Memory

LIBRARIES = 800 * 2**20
"""The bytes of CUDA's context, its libraries' work spaces and the allocator's gaps, which no tensor shows; not measured here."""

DRAWS = 3
"""How many rounds of the alignment's own estimator are made, since it may draw how many steps it replays."""

MIXED = {"bf16-mixed": torch.bfloat16, "bf16": torch.bfloat16, "16-mixed": torch.float16, "16": torch.float16}
"""The type of matrix products by the trainer's precision."""

TRUE = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64, "64": torch.float64}
"""The type of frozen weights by the trainer's precision."""


class Footprint:
    """The memory of an alignment that was built without weights.

    Args:
        module: The alignment; afterwards its networks have no content.
        batch: The number :math:`B` of samples of a batch.
        precision: The trainer's precision, such as ``bf16-mixed``; None for the default.
        averaged: Whether an average of the trained weights is kept.
        libraries: The bytes of the device that no tensor shows.
        prompt: A prompt that the model knows.
    """

    def __init__(
        self,
        module: Alignment,
        batch: int,
        precision: str | None = None,
        averaged: bool = False,
        libraries: int = LIBRARIES,
        prompt: str = PROMPT,
    ) -> None:
        if precision in TRUE:
            module.to(TRUE[precision])
        self.module, self.batch, self.averaged, self.libraries = module, batch, averaged, libraries
        self.estimator, self.memory = module.estimator, module.updater.memory
        model, reward = module.chain.model, module.reward
        self.weights = _weights(module)
        fake = Fake(MIXED.get(precision or ""))
        self.texts: Texts = emptied_texts(model, fake)
        fake.empty(model)
        fake.empty(reward)
        self.training = Training(
            model, reward, module.chain.sampler, batch, fake, module.optimization, module.penalty, prompt
        )

    @cached_property
    def embeddings(self) -> int:
        """The bytes of the embeddings that are kept beside the model: as many prompts as it has room for."""
        condition = self.training.encoded[0]
        row = sum(tensor[:1].numel() * tensor.element_size() for tensor in condition.tensors.values())
        return row * self.texts.memory

    @property
    def frozen(self) -> int:
        """The bytes on the device whatever the estimator does."""
        average = size_of(self.module.chain.model, trained=True) * self.averaged
        return sum(self.weights.values()) + self.embeddings + average + self.libraries

    def peak(self, estimator: Estimator | None = None, memory: Memory | None = None, batch: int | None = None) -> Peak:
        """Returns the most memory of training, all in all.

        Args:
            estimator: Another estimator than the alignment's.
            memory: What is given up to save memory, if not what the alignment gives up.
            batch: Another number of samples of a batch.

        Raises:
            ValueError: If the estimator does not fit the chain.
        """
        draws = DRAWS if estimator in (None, self.estimator) else 1
        found = self.training.peak(estimator or self.estimator, memory or self.memory, batch, draws)
        encoding = self.texts.passing + self.training.encoded[1]
        return Peak(self.frozen + max(found.device, encoding), found.waiting + self.texts.cpu)


def _weights(module: Alignment) -> dict[str, int]:
    """Returns the bytes of weights on the device, by the names of the parts."""
    model = unwrap(module.chain.model)
    parts: Mapping[str, torch.nn.Module] = dict(model.named_children())
    found = {f"{name}, frozen": size_of(part) for name, part in parts.items()}
    found["trained weights"] = size_of(model, trained=True)
    found[module.reward.label] = size_of(module.reward)
    return {name: size for name, size in found.items() if size}
