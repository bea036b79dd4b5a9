"""Prompts through a language model: the states of a layer, as many as the prompt has tokens."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rlr.models.base import Condition
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row


class LanguagePrompts(PromptEncoder):
    r"""Prompts to ``text``, states of a causal language model that reads the prompt within a template.

    ``text`` has shape :math:`(B, L, D)` with a length :math:`L` of its own for each prompt; a batch is padded and masked.

    Args:
        load: Returns the language model.
        tokenizer: Its tokenizer.
        template: Returns the text that the model reads for a prompt.
        layer: Whose states are taken: -1 is the last layer, -2 the one before.
        skip: How many tokens at the start are left out of ``text``, those of the template's instruction.
        length: How many tokens the model reads, those at the start included; what exceeds them is cut off.
        identity: See :class:`~rlr.models.text.PromptEncoder`.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self,
        load: Callable[[], nn.Module],
        tokenizer: Any,
        template: Callable[[str], str],
        layer: int,
        skip: int,
        length: int,
        identity: str,
        placement: TextPlacement | None = None,
    ) -> None:
        super().__init__(load, length, identity, placement)
        self.tokenizer = tokenizer
        self.template = template
        self.layer = layer
        self.skip = skip

    def count(self, prompt: str) -> int:
        return len(self.tokenizer(self.template(prompt), verbose=False).input_ids)

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        options = {"max_length": self.length, "truncation": True, "return_tensors": "pt"}
        tokens = self.tokenizer(self.template(prompt), **options).to(device)
        states = encoder(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, output_hidden_states=True, use_cache=False
        )
        return {"text": states.hidden_states[self.layer][0, self.skip :]}


def sequences(condition: Condition, name: str, dtype: torch.dtype) -> list[Tensor]:
    r"""Returns the sequences of a padded tensor without their padding, each with shape :math:`(L_i, D)`.

    Args:
        condition: The condition of :math:`B` prompts.
        name: The name of the tensor, of shape :math:`(B, L, D)`.
        dtype: The type of the result.
    """
    rows, mask = condition.tensors[name].to(dtype), condition.mask(name)
    return list(rows) if mask is None else [row[whole] for row, whole in zip(rows, mask, strict=True)]
