"""A small tokenizer of the Qwen language models, trained on a few sentences."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import Qwen2Tokenizer

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
INSTRUCTION = (
    "Describe the image by detailing the color, shape, size, texture, quantity, text, spatial relationships of the objects "
    "and background:"
)
"""The instruction of Qwen-Image's template, of which every word becomes one token, as of the published tokenizer."""
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen3's chat template, as far as one question needs it."""


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Returns a byte-pair tokenizer of 256 bytes, the words of the templates and the special tokens."""
    words = Tokenizer(models.BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    words.train_from_iterator(
        [INSTRUCTION, "system\nuser\nassistant\n", "a red circle on the blue background"], trainer
    )
    merges = [tuple(pair) for pair in json.loads(words.to_str())["model"]["merges"]]
    return Qwen2Tokenizer(
        vocab=words.get_vocab(),
        merges=merges,
        pad_token=PAD,
        eos_token=END,
        extra_special_tokens=[START, END],
        chat_template=TEMPLATE,
        model_max_length=4096,
    )
