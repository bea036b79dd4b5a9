"""Prompts to the conditions of FLUX.2: states of three layers of a language model, which reads each prompt as a user's message."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline, Flux2Pipeline
from diffusers.pipelines.flux2.system_messages import SYSTEM_MESSAGE
from torch import Tensor
from transformers import AutoProcessor, Mistral3ForConditionalGeneration, Qwen2Tokenizer, Qwen3ForCausalLM

from rlr.models.folder import ModelFolder
from rlr.models.placement import TextPlacement
from rlr.models.text import PromptEncoder, Row


class Reader(ABC):
    """How a language model reads a prompt.

    Args:
        tokenizer: Its tokenizer, an instance of :attr:`tokenizer_class`.
    """

    network_class: ClassVar[Any]
    """The class of the language model in transformers."""
    tokenizer_class: ClassVar[Any]
    """The class of its tokenizer."""
    pipeline_class: ClassVar[Any]
    """The class of the pipeline in diffusers."""
    layers: ClassVar[tuple[int, ...]]
    """The layers whose states are read; 0 is the embedding of the tokens."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    @abstractmethod
    def tokens(self, prompt: str, **options: Any) -> Mapping[str, Any]:
        """Returns ``input_ids`` and ``attention_mask`` of a prompt; ``options`` are those of a tokenizer's call."""


class Qwen(Reader):
    """Qwen3, the language model of FLUX.2-klein: the prompt is a question, to be answered without thinking."""

    network_class = Qwen3ForCausalLM
    tokenizer_class = Qwen2Tokenizer
    pipeline_class = Flux2KleinPipeline
    layers = (9, 18, 27)

    def tokens(self, prompt: str, **options: Any) -> Mapping[str, Any]:
        messages = [{"role": "user", "content": prompt}]
        asked = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": False}
        found: Mapping[str, Any] = self.tokenizer(self.tokenizer.apply_chat_template(messages, **asked), **options)
        return found


class Mistral(Reader):
    """Mistral Small 3, the language model of FLUX.2-dev: the prompt follows an instruction."""

    network_class = Mistral3ForConditionalGeneration
    tokenizer_class = AutoProcessor
    pipeline_class = Flux2Pipeline
    layers = (10, 20, 30)

    def tokens(self, prompt: str, **options: Any) -> Mapping[str, Any]:
        # the name of the image token would ask for an image
        said = {"system": SYSTEM_MESSAGE, "user": prompt.replace("[IMG]", "")}
        messages = [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in said.items()]
        asked = {"add_generation_prompt": False, "tokenize": True, "return_dict": True, "processor_kwargs": options}
        # the processor reads a batch of conversations
        found: Mapping[str, Any] = self.tokenizer.apply_chat_template([messages], **asked)
        return found


READERS: dict[str, type[Reader]] = {"qwen3": Qwen, "mistral3": Mistral}
"""By the ``model_type`` of the text encoder's configuration."""


def reader_of(folder: ModelFolder) -> type[Reader]:
    """Returns how the language model of a folder reads prompts.

    Raises:
        ValueError: If it is of another kind than those of FLUX.2.
    """
    kind = folder.model_type("text_encoder")
    if kind not in READERS:
        raise ValueError(
            f"{folder.path}/text_encoder/config.json: expected model_type: {' or '.join(READERS)}, as a FLUX.2 has, found {kind}; "
            "give path: a FLUX.2-klein or FLUX.2-dev"
        )
    return READERS[kind]


class Flux2Prompts(PromptEncoder):
    r"""Prompts to ``text``, the states of three layers of a language model side by side.

    ``text`` has shape :math:`(B, L, 3 D)`. The language model does not attend to padding; the states at padding are part of
    ``text``, since FLUX.2 attends to them, so there is no mask.

    Args:
        folder: The model's folder.
        dtype: The type of the weights.
        kind: How the language model reads prompts.
        tokens: How many tokens :math:`L` it reads, those around the prompt included.
        placement: See :class:`~rlr.models.text.PromptEncoder`.
    """

    def __init__(
        self,
        folder: ModelFolder,
        dtype: torch.dtype,
        kind: type[Reader],
        tokens: int = 512,
        placement: TextPlacement | None = None,
    ) -> None:
        load = partial(folder.network, kind.network_class, "text_encoder", dtype=dtype)
        identity = f"{folder.fingerprint('text_encoder')} {dtype} {tokens}"
        reader = kind(folder.tokenizer(kind.tokenizer_class))
        super().__init__(load, tokens, identity, placement)
        self.reader = reader

    def count(self, prompt: str) -> int:
        ids = self.reader.tokens(prompt, return_tensors="pt")["input_ids"]
        return int(ids.shape[-1])

    def embed(self, encoder: Any, prompt: str, device: torch.device) -> Row:
        options = {"padding": "max_length", "max_length": self.length, "truncation": True, "return_tensors": "pt"}
        found = self.reader.tokens(prompt, **options)
        inputs: dict[str, Tensor] = {name: found[name].to(device) for name in ("input_ids", "attention_mask")}
        # the scores of next tokens are not needed
        output = encoder(**inputs, output_hidden_states=True, use_cache=False, logits_to_keep=1)
        return {"text": torch.cat([output.hidden_states[layer][0] for layer in self.reader.layers], -1)}
