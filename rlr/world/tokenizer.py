"""The tokenizer of the world's captions: CLIP's own byte-level byte-pair encoding with a small table of merges."""

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from rlr.world.caption import COLOURS, COUNTS, POSITIONS, RELATIONS, SHAPES, TEXTURES, TONES, Group

LENGTH = 24
"""Tokens of a prompt, with start and end; the longest caption has 15."""

END, START = "<|endoftext|>", "<|startoftext|>"


def words() -> list[str]:
    """Every word of the grammar, sorted."""
    nouns = [Group(count, "red", shape).caption.split()[2] for shape in SHAPES for count in (1, 2)]
    phrases = [*COLOURS, *COUNTS, *POSITIONS, *RELATIONS, *TEXTURES, *TONES, *nouns, "an and background"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def build_tokenizer() -> CLIPTokenizer:
    """A tokenizer of which every world word is one token; any other text falls into shorter pieces, none unknown."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trained.train_from_iterator(words(), _trainer(alphabet))
    ranks = sorted(trained.get_vocab().items(), key=lambda item: item[1])
    # the trainer keeps only word endings that it has seen: other text needs all of them
    pieces = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *(piece for piece, _ in ranks)]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys([*pieces, START, END]))}
    return CLIPTokenizer(vocab=vocabulary, merges=_merges(trained), model_max_length=LENGTH)


def _trainer(alphabet: list[str]) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=5000, min_frequency=1, show_progress=False, initial_alphabet=alphabet, end_of_word_suffix="</w>"
    )


def _merges(trained: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
