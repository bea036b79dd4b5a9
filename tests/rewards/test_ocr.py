"""OCR is Flow-GRPO's rule, and its engine reads rendered text without a network."""

import builtins
import socket

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from rlr.rewards import OCR, RapidText
from rlr.rewards.ocr import levenshtein, quoted, similarity


def render(text: str, size: int = 44) -> torch.Tensor:
    """Black text on white, of 224 × 448 pixels."""
    image = Image.new("RGB", (448, 224), "white")
    ImageDraw.Draw(image).multiline_text((24, 40), text, fill="black", font=ImageFont.load_default(size), spacing=24)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255


class Says:
    """An engine that reads a number out of the first pixel and returns that text of a list."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, images):
        self.shapes += [image.shape for image in images]
        assert all(image.dtype == np.uint8 for image in images)
        return [self.texts[image[0, 0, 0]] for image in images]


def numbered(*numbers: int) -> torch.Tensor:
    """Images whose pixels are these bytes."""
    return torch.tensor(numbers).view(-1, 1, 1, 1).expand(-1, 3, 8, 12) / 255


# ---------------------------------------------------------------- the rule


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        ("", "", 0),
        ("abc", "", 3),
        ("", "ab", 2),
        ("kitten", "sitting", 3),
        ("abc", "abc", 0),
        ("ab", "ba", 2),
        ("abcd", "bcde", 2),
    ],
)
def test_levenshtein_has_known_answers(a, b, distance):
    assert levenshtein(a, b) == distance == levenshtein(b, a)


def test_levenshtein_is_the_length_of_the_shortest_path_of_edits():
    """The other route: a search through all texts that one edit reaches."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = ("".join(rng.choice(["a", "b"], rng.integers(0, 4))) for _ in range(2))
        reached, steps = {a}, 0
        while b not in reached:
            reached |= {edit for text in reached for edit in edits(text)}
            steps += 1
        assert levenshtein(a, b) == steps


def edits(text: str) -> set[str]:
    cuts = [(text[:i], text[i:]) for i in range(len(text) + 1)]
    inserted = {head + letter + tail for head, tail in cuts for letter in "ab"}
    return inserted | {h + t[1:] for h, t in cuts if t} | {h + c + t[1:] for h, t in cuts if t for c in "ab"}


CASES = [
    # the whole text, whatever its case and spaces
    ('a sign that says "Hello World"', "hello world", 1.0),
    ('a sign that says "Hello World"', "HELLOWORLD", 1.0),
    # a substring suffices
    ('a mug with "tea"', "the best tea in town", 1.0),
    ('a mug with "Tea Time"', "best tea", 1 - 5 / 7),
    # one letter of four is wrong, one is missing, one is too many
    ('a "stop" sign', "stap", 0.75),
    ('a "stop" sign', "stp", 0.75),
    ('a "stop" sign', "stoop", 0.75),
    # at most all letters are wrong
    ('a "stop" sign', "", 0.0),
    ('a "stop" sign', "an unrelated and long text", 0.0),
    # the first quoted text counts, and a quote that is not closed goes to the end
    ('"one" and "two"', "two", 0.0),
    ('"one" and "two"', "one", 1.0),
    ('a sign: "open', "open", 1.0),
]


@pytest.mark.parametrize(("prompt", "text", "score"), CASES)
def test_the_published_rule_case_by_case(prompt, text, score):
    assert OCR(Says(text))(numbered(0), [prompt]).item() == pytest.approx(score)


@pytest.mark.parametrize(
    "prompt", ["a sign", 'a sign that says ""', 'a sign that says "  "', "a sign that says “open”"]
)
def test_a_prompt_without_quoted_text_is_an_error_that_names_it(prompt):
    with pytest.raises(ValueError, match=r"straight double quotes, such as: .*; got '" + prompt[:6]):
        OCR(Says("open"))(numbered(0, 0), ['a "stop" sign', prompt])


def test_each_image_is_read_once_and_for_its_own_prompt():
    engine = Says("red", "green", "blue")
    scores = OCR(engine)(numbered(2, 0, 1), ['"blue"', '"blue"', '"green"'])
    assert scores.tolist() == pytest.approx([1.0, similarity("blue", "red"), 1.0])
    assert engine.shapes == [(8, 12, 3)] * 3


def test_a_video_is_the_mean_of_the_positive_scores_of_every_fourth_frame():
    engine = Says("stop", "st", "nothing of it", "the stop sign")
    # frames 0, 4 and 8 of ten are read
    frames = [0, 3, 3, 3, 1, 3, 3, 3, 2, 3]
    videos = torch.stack([numbered(*frames), numbered(*[2] * 10), numbered(*[3] * 10)])
    prompts = ['a "stop" sign'] * 3
    # in videos a substring is not enough: "thestopsign" is 7 edits away, more than there are letters
    assert OCR(engine)(videos, prompts).tolist() == pytest.approx([(1 + 0.5) / 2, 0.0, 0.0])
    assert len(engine.shapes) == 9


@pytest.mark.parametrize("answer", ["open", ["open"], [None, None], []])
def test_an_engine_must_return_one_text_an_image(answer):
    with pytest.raises(ValueError, match=r"OCR.engine: expected a list of \d texts, one an image"):
        OCR(lambda images: answer if len(images) == 2 else answer[1:])(torch.zeros(1, 5, 3, 8, 8), ['"open"'])


def test_pixels_out_of_range_and_lists_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"OCR: expected pixels in \[0, 1\], got \[-1, -1\]"):
        OCR(Says("open"))(-torch.ones(1, 3, 8, 8), ['"open"'])
    with pytest.raises(ValueError, match=r"got shape \(1, 3, 8, 8\) and 2 prompts"):
        OCR(Says("open"))(torch.ones(1, 3, 8, 8), ['"open"', '"open"'])


def test_only_quotes_count():
    assert quoted('it\'s a "big sale" today') == "big sale"


# ---------------------------------------------------------------- the engine


@pytest.fixture(scope="module")
def reader():
    return RapidText(threads=1)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No address can be reached."""

    def refuse(*args, **options):
        raise AssertionError("a test asked for a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_rapid_text_reads_rendered_text(reader):
    samples = torch.stack([render("Hello World"), render("HELLO world"), render("New York\nCity 2024"), render("")])
    prompts = ['a sign that says "Hello World"', '"hello WORLD"', '"New York City 2024"', '"Hello"']
    assert OCR(reader)(samples, prompts).tolist() == [1.0, 1.0, 1.0, 0.0]
    wrong = ['"Hello Word"', '"Goodbye"', '"York City"', '"2024"']
    # the first: one letter more than asked for; the third: a substring across two lines
    first, second, third, last = OCR(reader)(samples, wrong).tolist()
    assert (first, third, last) == (pytest.approx(1 - 1 / 9), 1.0, 0.0)
    assert second < 0.5


def test_rapid_text_reads_colors_in_the_order_that_it_expects(reader):
    """Red text on a background of equal brightness in blue: it is read in both orders, and each gets its own channel."""
    seen = []
    original = reader.reader

    class Watching:
        def __call__(self, image):
            seen.append(image[0, 0].tolist())
            return original(image)

    reader.reader = Watching()
    try:
        red = torch.tensor([1.0, 0.0, 0.2]).view(1, 3, 1, 1).expand(1, 3, 32, 32)
        OCR(reader)(red, ['"open"'])
    finally:
        reader.reader = original
    assert seen == [[51, 0, 255]]


def test_without_the_packages_the_remedy_is_named(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **options):
        if name == "rapidocr":
            raise ImportError(name)
        return original(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install 'rlr\[ocr\]'`, or pass another engine to OCR"):
        OCR()
