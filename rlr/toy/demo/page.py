"""The report as one HTML file that needs no other: images are inside, nothing is fetched."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from rlr.evaluation.statistics import Comparison
from rlr.toy.demo.grid import FIRST, Pair
from rlr.toy.demo.labels import show
from rlr.toy.demo.media import Picture
from rlr.toy.demo.table import rows
from rlr.toy.demo.world import World


@dataclass(frozen=True)
class Story:
    """The sentences of the page.

    Args:
        title: The heading.
        lead: What was done and what came of it.
        check: What the exact check is, in apposition.
        noise: How the numbers above the samples are to be read.
        reading: How the table is to be read.
        method: The method in a paragraph.
        limits: What this does not show.
    """

    title: str
    lead: str
    check: str
    noise: str
    reading: str
    method: str
    limits: str


def page(
    world: World,
    story: Story,
    comparisons: Mapping[str, Comparison],
    shown: Sequence[Pair],
    curves: tuple[bytes, bytes],
    facts: Mapping[str, str],
) -> str:
    """Returns the page.

    Args:
        world: What the prompts are of.
        story: Its sentences.
        comparisons: The measurements.
        shown: A pair of samples for every prompt.
        curves: The curves as PNG, for light and for dark.
        facts: What one needs to repeat the run, by name.
    """
    template = Template(files("rlr.toy.demo").joinpath("page.html").read_text(encoding="utf-8"))
    light, dark = (Picture(content).inline for content in curves)
    sentences = {name: escape(text) for name, text in vars(story).items()}
    return template.substitute(
        sentences,
        tiles=_lines(_tile(world.labels[name], name, comparisons[name]) for name in world.tiles),
        first=min(FIRST, len(shown)),
        cards=_lines(map(_card, shown[:FIRST])),
        count=max(len(shown) - FIRST, 0),
        others=_lines(map(_card, shown[FIRST:])),
        layout=world.layout,
        rows=_lines(map(_row, rows(comparisons, world.labels))),
        light=light,
        dark=dark,
        facts=_lines(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in facts.items()),
    )


def _lines(parts: Iterable[str]) -> str:
    return "\n".join(parts)


def _tile(label: str, name: str, value: Comparison) -> str:
    low, high = (show(name, bound, signed=True) for bound in (value.low, value.high))
    return (
        f'<div class="tile"><dt>{escape(label)}</dt><dd class="move">{show(name, value.base)} '
        f"<span>→</span> {show(name, value.aligned)}</dd>"
        f'<dd class="by">{show(name, value.difference, signed=True)}, 95 % interval {low} … {high}</dd></div>'
    )


def _row(cells: tuple[str, ...]) -> str:
    # the indented rows of the exact check are its parts
    kind = "" if cells[0].startswith("…") else ' class="main"'
    return f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _card(pair: Pair) -> str:
    figures = "".join(_figure(pair, k, name) for k, name in enumerate(("base", "aligned")))
    return f'<li><p>{escape(pair.prompt)}</p><div class="two">{figures}</div></li>'


def _figure(pair: Pair, k: int, name: str) -> str:
    mark, word = ("✓", "right") if pair.correct[k] else ("✗", "wrong")
    element = pair.media[k].element(f"{name}: {pair.prompt} ({word})")
    return (
        f"<figure>{element}"
        f'<figcaption><span class="{word}">{mark}</span><span>{name}</span><span>{pair.rewards[k]:.2f}</span></figcaption></figure>'
    )
