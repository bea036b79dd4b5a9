"""The words of documents, docstrings, comments, messages and configs: American spelling, and the terms of the field."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from tests.test_project import ROOT, tracked

AMERICAN = {
    r"\w*colour\w*": "color",
    r"\w*behaviou?r\b(?<!behavior)": "behavior",
    r"neighbour\w*": "neighbor",
    r"favour\w*": "favor",
    r"centres?|centred": "center",
    r"grey": "gray",
    r"learnt": "learned",
    r"whilst": "while",
    r"(?:un)?labell\w+": "label…",
    r"modell\w+": "model…",
    r"cancell(?:ed|ing)": "cancel…",
    r"travell\w+": "travel…",
    r"catalogues?": "catalog",
    r"analys(?:e|ed|er|es|ing)(?<!analyses)": "analyze",
    r"(?:de|dis|re|un)?(?:author|discret|emphas|equal|final|general|initial|item|local|material|maxim|minim|neutral|normal|optim"
    r"|organ|parametr|penal|priorit|quant|random|real|recogn|regular|serial|special|stabil|standard|summar|synchron|token|util"
    r"|vector|visual)is(?:e[drs]?|ers|es|ing|ations?)": "…ize",
}
"""British spellings with the American ones."""

TERMS = {
    r"roll-outs?|rolled out|rolls? out": "rollout, sample",
    r"pictures?": "image",
    r"(?:an?|the|of|each|every|one|two|whole|these|those|for|with|built-in|held-out) (?-i:clips?)(?! range| fraction)": "video",
    r"(?-i:clips?) of": "video of",
    r"loud(?:er|est|ly|ness)?": "of a large variance",
    r"quiet(?:er|est|ly)?": "of a small variance",
    r"honest(?:ly)?": "unbiased, exact",
    r"told|tells|telling": "said, stated, logged",
    r"lent|lends|lending": "swapped",
    r"paint(?:s|ed|ing)?": "sample",
    r"laid over|lays? over": "overrides",
    r"(?-i:(?:is|are|was|were) none)": "there is no …",
    r"ledgers?": "gradient accumulator",
    r"excerpts?": "frame selection",
    r"drown(?:s|ed|ing)?": "have a smaller effect",
}
"""Words of this project's earlier texts with the terms of the field."""

NAMES = {
    **dict.fromkeys(("picture", "pictures"), "image"),
    "clips": "videos",
    **dict.fromkeys(("roll", "rolled"), "rollout, sample"),
    **dict.fromkeys(("paint", "painted"), "sample"),
    **dict.fromkeys(("excerpt", "excerpts"), "frame selection"),
    **dict.fromkeys(("introduce", "watch", "observe", "settle"), "update_statistics, measure, add"),
    "remembers": "has_reference",
    **dict.fromkeys(("ledger", "ledgers"), "gradient accumulator"),
    **dict.fromkeys(("meter", "phase"), "profiler, section"),
    **dict.fromkeys(("pace", "cooldown"), "learning rate schedule, decay steps"),
    **dict.fromkeys(("shown", "told", "tell", "tells"), "formatted, logged"),
    **dict.fromkeys(("lent", "untrained"), "swapped, reference"),
    **dict.fromkeys(("mistake", "mistakes"), "error"),
    "parked": "offloaded",
    **dict.fromkeys(("beside", "story"), "the noun of what it is"),
    **dict.fromkeys(("loud", "honest"), "of a large variance, unbiased"),
}
"""The same for the names of classes and functions. A singular clip is that of gradients or the network CLIP."""

RULES = {
    re.compile(rf"(?<![\w`./-])(?:{words})(?![\w`/-]|\.\w)", re.IGNORECASE): use
    for words, use in (AMERICAN | TERMS).items()
}

ALLOWED = {
    "quiet": {"-q, --quiet"},
}
"""Contexts in which a word is right: options and identifiers."""


def prose(path: Path) -> list[tuple[int, str]]:
    """The lines of a file that people read, with their numbers: no code and no addresses."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        # a test may hold wrong words as data
        texts = docstrings(text) if path.is_relative_to(ROOT / "tests") else strings(text)
        return [*texts, *comments(text)]
    if path.suffix == ".yaml":
        lines = ((number, line.partition("# ")[2]) for number, line in enumerate(text.splitlines(), 1))
        return [(number, line) for number, line in lines if line]
    blank = re.sub(r"```.*?```", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL)
    return [(number, without_code(line)) for number, line in enumerate(blank.splitlines(), 1)]


def without_code(line: str) -> str:
    """The line without code, link targets and addresses."""
    return re.sub(r"``?[^`]*``?|\]\([^)]*\)|https?://\S+", " ", line)


def strings(text: str) -> list[tuple[int, str]]:
    """The docstrings and messages of a module: string constants with a blank."""
    constants = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant))
    return [line for node in constants if isinstance(node.value, str) and " " in node.value for line in lines_of(node)]


def docstrings(text: str) -> list[tuple[int, str]]:
    """The docstrings of a module alone."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    owners = (node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds) and ast.get_docstring(node))
    return [line for owner in owners for line in lines_of(owner.body[0].value)]


def lines_of(node: ast.Constant) -> list[tuple[int, str]]:
    """The lines of a string constant with their numbers, without code."""
    lines = without_code(re.sub(r":\w+:`[^`]*`", " ", node.value)).splitlines()
    return [(node.lineno + k, line) for k, line in enumerate(lines)]


def comments(text: str) -> list[tuple[int, str]]:
    """The comments of a module."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [(token.start[0], without_code(token.string)) for token in tokens if token.type == tokenize.COMMENT]


def broken(lines: list[tuple[int, str]]) -> list[str]:
    """The words in lines that break a rule, each with the words to use."""
    return [
        f"{number}: {match[0]!r}, use {use!r}"
        for number, line in lines
        for rule, use in RULES.items()
        for match in rule.finditer(line)
        if not any(context in line for context in ALLOWED.get(match[0].lower(), ()))
    ]


def documents() -> list[Path]:
    """All files with prose, but for the generated results and the list of changes, which names old words."""
    found = tracked("*.md", "rlr/*.py", "experiments/*.py", "tests/*.py", "configs/*.yaml", "experiments/*.yaml")
    names = {path: path.relative_to(ROOT).as_posix() for path in found}
    return [p for p, name in names.items() if name != "CHANGELOG.md" and not name.startswith("experiments/results/")]


def names(text: str) -> list[tuple[int, str]]:
    """The names of the classes and functions of a module, with their lines."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [(node.lineno, node.name) for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]


def misnamed(text: str) -> list[str]:
    """The names in a module with a word that breaks a rule, each with the words to use."""
    return [
        f"{number}: {name}, use {NAMES[word.lower()]!r}"
        for number, name in names(text)
        for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
        if word.lower() in NAMES
    ]


def test_classes_and_functions_are_named_by_the_terms_of_the_field() -> None:
    found = []
    for path in tracked("rlr/*.py", "experiments/*.py"):
        found += [f"{path.relative_to(ROOT).as_posix()}:{line}" for line in misnamed(path.read_text(encoding="utf-8"))]
    assert found == []


def test_a_name_of_the_project_s_earlier_texts_is_found() -> None:
    wrong = "class WorldClips:\n    def _draw_pictures(self): ...\n    async def watch(self): ...\n"
    assert [line.split(",")[0] for line in misnamed(wrong)] == ["1: WorldClips", "2: _draw_pictures", "3: watch"]
    right = "class SampleClip: ...\nclass CLIPScore: ...\ndef clip_norm(): ...\ndef open_clip_tokenizer(): ...\n"
    assert misnamed(right) == []


def test_texts_use_american_spelling_and_the_terms_of_the_field() -> None:
    found = []
    for path in documents():
        found += [f"{path.relative_to(ROOT).as_posix()}:{line}" for line in broken(prose(path))]
    assert found == []


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The pictures are scored.", "pictures"),
        ("a roll-out of the chain", "roll-out"),
        ("We optimise it.", "optimise"),
        ("its colour is red", "colour"),
        ("the loudest estimator", "loudest"),
        ("there is nothing, and this is none", "is none"),
        ("It is told above.", "told"),
        ("the clips of a prompt", "the clips"),
    ],
)
def test_a_wrong_word_is_found(text: str, word: str) -> None:
    """The law above can fail."""
    (found, *_) = broken([(1, text)])
    assert found.startswith(f"1: {word!r}, use ")


@pytest.mark.parametrize(
    "text", ["CLIP and clip_norm", "the clip range", "a raised exercise", "noise, otherwise", "a quietus"]
)
def test_a_right_word_is_not_found(text: str) -> None:
    assert broken([(1, text)]) == []


def test_only_prose_is_read(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""A picture."""\ncolour = "picture"  # grey\nraise ValueError(f"no {colour} picture")\n')
    assert [line.split(",")[0] for line in broken(prose(module))] == ["1: 'picture'", "3: 'picture'", "2: 'grey'"]
    page = tmp_path / "page.md"
    page.write_text("`picture` [a](picture.md)\n\n```\npicture\n```\n\na picture\n")
    assert broken(prose(page)) == ["7: 'picture', use 'image'"]
