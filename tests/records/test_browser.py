"""Pages in a real browser: they open, sort, filter and play without an error, on a phone and in the dark."""

import json

import pytest

from rlr.cli import main
from tests.records.browser import CHROMIUM, browser
from tests.records.folders import PROMPTS, run_folder, write_samples

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine: apt-get install chromium"
)

VISIBLE = "[...document.querySelectorAll('.cards li:not([hidden]) > p')].map(p => p.textContent)"
CONTRAST = """(() => {
    const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const light = (color) => color.match(/[\\d.]+/g).slice(0, 3).map(v => linear(v / 255))
        .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
    const paper = light(getComputedStyle(document.body).backgroundColor);
    const of = (value) => (Math.max(value, paper) + 0.05) / (Math.min(value, paper) + 0.05);
    const least = (elements, style) =>
        Math.min(...[...document.querySelectorAll(elements)].map(e => of(light(getComputedStyle(e)[style]))));
    return [least('h1, p, .faint, figcaption, td, th, dt, dd', 'color'), least('.line', 'stroke'), paper];
})()"""
"""The least contrast of texts and of lines with the background, and the brightness of that."""
PHONE = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs with images, one with videos, the pages of all and their comparison."""
    top = tmp_path_factory.mktemp("runs")
    run_folder(top / "one")
    run_folder(top / "two", lr=3e-3, gain=(0.5, 0.0, 0.0, 0.0))
    # numbers of eight digits
    run_folder(top / "long", gain=(7e-5, 6e-5, 8e-5, 7e-5))
    run_folder(top / "movie", samples=False)
    write_samples(top / "movie" / "samples" / "last", (1.0, float("nan"), -1.0, 4.0), 20, ".mp4")
    main(["page", str(top / "*")])
    main(["compare", str(top / "one"), str(top / "two"), "--folder", str(top / "comparison")])
    return top


@pytest.fixture
def choose(opened):
    """Returns a function that sets a control of the gallery and returns the prompts that are then visible, in order."""

    def set_(control: str, text: str) -> list[str]:
        code = f"""(() => {{
            const control = document.querySelector('.gallery [name={control}]');
            const option = [...(control.options ?? [])].find(o => o.text === {json.dumps(text)});
            control.value = option ? option.value : {json.dumps(text)};
            control.dispatchEvent(new Event('input', {{bubbles: true}}));
            return {VISIBLE};
        }})()"""
        return opened.run(code)

    return set_


def test_a_gallery_sorts_and_filters(opened, folder, choose):
    opened.open(folder / "one" / "index.html")
    # gains of 1, 2, -1 and 4
    assert opened.run(VISIBLE) == PROMPTS
    assert choose("sort", "change of Toy, highest first") == [PROMPTS[k] for k in (3, 1, 0, 2)]
    assert choose("sort", "change of Toy, lowest first") == [PROMPTS[k] for k in (2, 0, 1, 3)]
    assert choose("only", "change of Toy below 0") == [PROMPTS[2]]
    assert opened.run("document.querySelector('output').value") == "1 of 4"
    choose("only", "all")
    choose("sort", "order of the prompts")
    assert choose("text", "CIRCLE") == [PROMPTS[1], PROMPTS[3]]
    assert choose("text", "") == PROMPTS
    assert opened.faults() == []
    assert opened.requests() <= {"file", "data"}


def test_videos_play_also_after_they_were_sorted(opened, folder, choose):
    opened.open(folder / "movie" / "index.html")
    # a sample without a score is last, whichever way
    assert choose("sort", "Toy, lowest first")[-1] == PROMPTS[1]
    assert choose("sort", "Toy, highest first")[-1] == PROMPTS[1]
    played = """Promise.all([...document.querySelectorAll('video')].map(async video => {
        await video.play();
        const from = video.currentTime;
        while (video.currentTime === from) await new Promise(resume => setTimeout(resume, 20));
        return video.videoWidth;
    }))"""
    assert opened.run(played) == [64] * 8
    assert opened.faults() == []


@pytest.mark.parametrize("page", ["one", "movie", "comparison"])
def test_a_phone_shows_it_without_scrolling_sideways(opened, folder, page):
    opened.call("Emulation.setDeviceMetricsOverride", **PHONE)
    opened.open(folder / page / "index.html")
    assert opened.run("document.documentElement.scrollWidth") == 360
    smallest = "Math.min(...[...document.querySelectorAll('svg text')].map(t => t.getBoundingClientRect().height))"
    assert opened.run(smallest) >= 9
    opened.call("Emulation.clearDeviceMetricsOverride")
    assert opened.faults() == []


@pytest.mark.parametrize("width", [1280, 700, 360])
@pytest.mark.parametrize("page", ["long", "movie", "comparison"])
def test_nothing_is_wider_than_its_box(opened, folder, page, width):
    opened.call("Emulation.setDeviceMetricsOverride", **{**PHONE, "width": width, "deviceScaleFactor": 1})
    opened.open(folder / page / "index.html")
    # as many numbers as a run with an evaluation and a test of two measurements has
    opened.run("""(() => {
        const tiles = document.querySelector('.tiles');
        while (tiles && tiles.children.length < 5) tiles.append(tiles.firstElementChild.cloneNode(true));
    })()""")
    # what is wider scrolls
    boxes = "[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg, select, input'))"
    wide = (
        f"{boxes}.filter(e => e.clientWidth && e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 200))"
    )
    assert opened.run(wide) == []
    edges = "(t => [t.getBoundingClientRect().left, t.closest('svg').getBoundingClientRect().left])"
    assert opened.run(f"[...document.querySelectorAll('svg text')].map({edges}).filter(([a, b]) => a < b - 0.5)") == []
    opened.call("Emulation.clearDeviceMetricsOverride")


def test_captions_of_a_card_are_alike(opened, folder):
    opened.open(folder / "long" / "index.html")
    # a short score beside a long one
    scores = "document.querySelectorAll('.gallery figcaption span:last-child')"
    opened.run(f"{scores}.forEach((s, k) => s.textContent = k % 2 ? '−0.0683612' : '0.1')")
    captions = "[...li.querySelectorAll('figcaption')].map(f => f.offsetHeight)"
    heights = f"[...document.querySelectorAll('.cards li')].map(li => {captions})"
    found = opened.run(heights)
    assert len(found) == 4
    assert all(len(set(card)) == 1 for card in found)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(opened, folder, scheme):
    opened.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    opened.open(folder / "one" / "index.html")
    texts, lines, paper = opened.run(CONTRAST)
    # the levels of the Web Content Accessibility Guidelines for text and for drawings
    assert texts >= 4.5
    assert lines >= 3
    assert (paper < 0.1) == (scheme == "dark")
