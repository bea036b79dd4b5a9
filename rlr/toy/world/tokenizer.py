"""The tokenizer of the world's captions: CLIP's own byte-level byte-pair encoding with a small table of merges."""

import gzip
from collections import Counter
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import pre_tokenizers
from transformers import CLIPTokenizer

from rlr.toy.world.caption import COLORS, COUNTS, POSITIONS, RELATIONS, SHAPES, TEXTURES, TONES, Group
from rlr.toy.world.motion import MOTIONS

LENGTH = 24
"""The tokens of a prompt, including start and end; the longest caption of an image has 15, of a video 17."""

END, START = "<|endoftext|>", "<|startoftext|>"
END_OF_WORD = "</w>"


def words() -> list[str]:
    """Returns every word of the grammar, sorted."""
    nouns = [Group(count, "red", shape).caption.split()[2] for shape in SHAPES for count in (1, 2)]
    phrases = [*COLORS, *COUNTS, *POSITIONS, *RELATIONS, *TEXTURES, *TONES, *nouns, "an and background"]
    return sorted({word for phrase in phrases for word in phrase.split()})


def video_words() -> list[str]:
    """Returns every word of the grammar of videos, sorted."""
    return sorted({*words(), *(word for motion in MOTIONS for word in motion.caption.split())})


def write_merges(path: Path) -> None:
    """Writes the merges of video captions in the format of open_clip: gzipped, a comment line and then one merge a line."""
    lines = ["#version: 0.2", *map(" ".join, learn_merges(video_words()))]
    # without a final newline, which open_clip reads as an empty merge, and without a time, so the same words give the same file
    path.write_bytes(gzip.compress("\n".join(lines).encode(), mtime=0))


def open_clip_tokenizer() -> Any:
    """Returns open_clip's tokenizer of video captions, with :data:`LENGTH` tokens padded with 0."""
    # imported here, because the import takes seconds
    from open_clip import SimpleTokenizer

    with TemporaryDirectory() as folder:
        path = Path(folder) / "merges.txt.gz"
        write_merges(path)
        return SimpleTokenizer(str(path), context_length=LENGTH)


def build_tokenizer() -> CLIPTokenizer:
    """Returns a tokenizer with one token for every word of the grammar; other text is split into shorter known tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: Any = learn_merges(words())
    pieces = [*alphabet, *(symbol + END_OF_WORD for symbol in alphabet), *map("".join, merges), START, END]
    vocabulary = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def learn_merges(corpus: list[str]) -> list[tuple[str, str]]:
    """Returns the merges of byte-pair encoding (Sennrich et al., 2016) until every word is one token.

    The trainer of ``tokenizers`` breaks ties in an order that differs between processes. Weights need one order, so the
    alphabetically first pair wins a tie.
    """
    split = [[*word[:-1], word[-1] + END_OF_WORD] for word in corpus]
    merges = []
    while pairs := Counter(pair for pieces in split for pair in pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merge(pieces, best) for pieces in split]
    return merges


def _merge(pieces: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out
