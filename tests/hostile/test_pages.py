"""Pages show what a prompt, a label or a setting says, and do nothing that it says."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from rlr.cli.analysis_page import Analysis
from rlr.evaluation.report import Card as GalleryCard
from rlr.evaluation.report import Facts, Gallery, Media, Sample, Samples, Table, Text, Tiles, page
from rlr.evaluation.results import Measurement, Results
from rlr.io.text import escaped
from rlr.models.export import Card
from rlr.records.comparison import write_comparison
from rlr.records.run_page import write_page
from rlr.toy.demo.report import Report

HOSTILE = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    '<img src=x onerror="window.ran=1">',
    '"><svg onload=window.ran=1>',
    "' autofocus onfocus='window.ran=1",
    "javascript:window.ran=1",
    "{{ 7 * 7 }} {% for x in y %}",
    "[a](javascript:window.ran=1) ![b](http://tracker.example/x.png)",
    "a | b\n| --- |\n<!-- -->",
    "`code` &lt;script&gt; \\[a\\](b)",
    "</title><base href=http://evil.example>",
    "]]><iframe src=http://evil.example>",
    "\u202e\u2028\u0000",
)
"""Prompts, labels and settings of somebody who wants a page to do something."""
ALL = " ".join(HOSTILE).replace("\0", "")


class Elements(HTMLParser):
    """Collects the elements of a page with the names of their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.addresses: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        self.addresses += [
            value or "" for name, value in attrs if name in ("src", "href", "action", "formaction", "data")
        ]

    def handle_data(self, data):
        self.texts.append(data)


def harmless(text: str, model: str) -> None:
    """Raises if a page has other elements, attributes or addresses than one whose texts are harmless."""
    found, expected = Elements(text), Elements(model)
    assert found.tags == expected.tags
    assert found.attributes == expected.attributes
    assert not [name for name in found.attributes if name.startswith("on")]
    assert all(address.startswith(("data:", "#")) for address in found.addresses)


PNG = bytes.fromhex("89504e470d0a1a0a")


def blocks(text: str) -> list:
    media = Media(PNG, text)
    sample = Sample(media, text, text)
    return [
        Table(text, (text, text), [(text, text)], text),
        Text(text, [text], code=text, summary=text),
        Tiles([(text, text, text, text)], text),
        Samples(text, [(text, [sample])], text, summary=text),
        Gallery(text, [GalleryCard(text, [sample], [1.0])], [f"change of {text}"], text),
        Facts(text, {text: text}),
    ]


@pytest.mark.parametrize("text", [*HOSTILE, ALL], ids=[*map(str, range(len(HOSTILE))), "all"])
def test_every_block_of_a_page_escapes_what_it_shows(text):
    found = page(text, text, blocks(text))
    harmless(found, page("a", "b", blocks("c")))
    assert text.replace("\0", "\ufffd") in "".join(Elements(found).texts).replace("\0", "\ufffd")


def test_the_law_can_fail():
    for text in ("<script>1</script>", "<img src=x>", "<b onclick=1>", "<iframe></iframe>"):
        with pytest.raises(AssertionError):
            harmless(f"<p>{text}</p>", "<p>a</p>")


def run_folder(folder: Path, text: str) -> Path:
    """The folder of a run in which every text is hostile."""
    numbers = {"base": 0.0, "aligned": 1.0, "difference": 1.0, "low": 0.5, "high": 1.5}
    found = {
        "results": {text: numbers},
        "scores": {text: [[1.0], [2.0]]},
        "base_scores": {text: [[0.0], [0.0]]},
        "prompts": [text, "b"],
    }
    files = {
        "config.yaml": json.dumps({"model": {"class_path": text}, text: text}),
        "run.json": json.dumps(
            {"commands": [{"command": "fit", "line": text, "summary": text, "device": text, "versions": {text: text}}]}
        ),
        "evaluation/test/results.json": json.dumps({"sets": {text: found}, "update": 1, "device": text}),
        "samples/a/samples.json": json.dumps(
            {
                "set": text,
                "metrics": [text],
                "samples": [
                    {"prompt": text, "files": {"aligned": "0", "base": "1"}, "scores": {"aligned": {text: 1.0}}}
                ],
            }
        ),
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    row = ",".join(['"' + part.replace('"', '""') + '"' for part in (text, text)])
    (folder / "metrics.csv").write_text(
        f'updates,reward/mean,"{text.replace(chr(34), chr(34) * 2)}"\n1,2.0,3.0\n2,3.0,4.0\n'
    )
    (folder / "evaluation/fit").mkdir(parents=True)
    (folder / "evaluation/fit/history.csv").write_text(f"update,prompts,measurement,aligned\n0,{row},1\n9,{row},2\n")
    for name in "01":
        (folder / f"samples/a/{name}.png").write_bytes(png_file())
    return folder


def png_file() -> bytes:
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("text", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_the_page_of_a_run_and_a_comparison_escape_what_its_files_say(text, tmp_path):
    text = text.replace("\0", "")
    pages = []
    for said, names in (("word", ("a", "b")), (text, ("c", "d<script>"))):
        folders = [run_folder(tmp_path / name, said) for name in names]
        written = write_comparison(folders, tmp_path / f"comparison of {names[0]}")
        pages.append([file.read_text() for file in (*map(write_page, folders), written[0])])
    for harmless_page, hostile_page in zip(*pages, strict=True):
        harmless(hostile_page, harmless_page)


def shown(markdown: str) -> str:
    """Returns what Markdown shows of a text in a cell, or raises where it is more than text."""
    unescaped = re.sub(r"\\([\\|`\[\]])", lambda match: f"\\{ord(match[1])};", markdown)
    assert not re.search(r"[|`\[\]<]", unescaped)
    plain = re.sub(r"\\(\d+);", lambda match: chr(int(match[1])), unescaped)
    return plain.replace("&lt;", "<").replace("&amp;", "&")


@pytest.mark.parametrize("text", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_markdown_shows_a_text_as_it_is(text):
    assert shown(escaped(text)) == " ".join(text.split())
    (_, _, row) = Table("", ("a", "b"), [(text, "1")]).markdown().splitlines()
    assert len(re.findall(r"(?<!\\)\|", row.replace("\\\\", ""))) == 3


@pytest.mark.parametrize("text", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_a_model_card_and_results_escape_what_they_show(text):
    results = Results(1, {text: [Measurement(text, torch.ones(2, 1), torch.zeros(2, 1))]}, {text: ["a", "b"]})
    card = Card(text, {text: text, "sampler": text}, results.text()).text(f"models/{text}", "A folder.", "")
    for line in card.splitlines():
        if not line.startswith(("* Base", "---", "```")):
            assert "<" not in line.replace("<!", "<").replace("\\<", "") or line.startswith("* Base")
            assert not re.search(r"(?<!\\)\]\(", line)


def test_every_writer_of_a_page_is_here():
    """A new caller of ``page`` is tested above, or uses its blocks."""
    root = Path(__file__).parents[2] / "rlr"
    callers = {
        file.stem for file in root.rglob("*.py") if re.search(r"return page\(", file.read_text(encoding="utf-8"))
    }
    assert callers == {"comparison", "run_page", "analysis_page", "report"}
    template = (root / "evaluation" / "page.html").read_text()
    assert "|safe" not in template.replace(" ", "")
    assert "autoescape" not in template
    assert Analysis.html.__code__.co_names.count("page") == Report._page.__code__.co_names.count("page") == 1
