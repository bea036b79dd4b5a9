import base64
import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from rlr.chain import Chain
from rlr.evaluation import report
from rlr.evaluation.images import to_image
from rlr.evaluation.report import Media, Sample, Samples
from rlr.io.video import read_video
from rlr.rewards import FrameReward
from rlr.samplers import DDIM
from rlr.toy.demo.__main__ import main
from rlr.toy.demo.evaluation import world_of
from rlr.toy.demo.images import Images
from rlr.toy.demo.videos import Videos, enlarged, strip
from rlr.toy.world.motion import parse_video
from rlr.toy.world.videos import draw_videos
from tests.toy.demo.test_demo import References
from tests.toy.demo.toy import Light, Smear, SmearClips, evaluate

CONFIG = """
model:
  class_path: rlr.modules.VideoAlignment
  init_args:
    model: tests.toy.demo.toy.SmearClips
    sampler:
      class_path: rlr.samplers.DDIM
      init_args: {steps: 3}
    reward:
      class_path: rlr.rewards.FrameReward
      init_args: {reward: tests.toy.demo.toy.Light}
    estimator:
      class_path: rlr.estimators.RLR
      init_args: {length: 1}
    optimization:
      lr: 0.05
data:
  class_path: WorldVideos
  init_args: {train: 16, batch_size: 4}
trainer:
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
"""
PROMPTS = 14


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a demo of two updates of a model of videos that has learned nothing, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    config = folder / "toy.yaml"
    config.write_text(CONFIG)
    out, printed = folder / "results", io.StringIO()
    words = f"--config {config} --out {out} --updates 2 --every 1 --prompts {PROMPTS} --samples 2"
    with contextlib.redirect_stdout(printed):
        assert main(words.split()) == 0
    return out, printed.getvalue()


@pytest.fixture(scope="module")
def finished(run: tuple[Path, str]) -> Path:
    return run[0]


@pytest.fixture(scope="module")
def base(finished: Path):
    """The evaluation of the model before any update."""
    prompts = json.loads((finished / "results.json").read_text(encoding="utf-8"))["prompts"]
    return evaluate(Videos(8.0), Chain(SmearClips(), DDIM(3)), FrameReward(Light()), prompts)


def page(folder: Path) -> str:
    return (folder / "index.html").read_text(encoding="utf-8")


def test_a_model_says_what_it_makes() -> None:
    assert isinstance(world_of(Smear()), Images)
    clips = world_of(SmearClips())
    assert isinstance(clips, Videos)
    assert clips.fps == 8


def test_the_first_prompts_have_a_film_each(finished: Path, base) -> None:
    names = sorted(path.name for path in (finished / "videos").iterdir())
    assert names == sorted(f"{k:02d}-{which}.mp4" for k in range(12) for which in ("base", "aligned"))
    for k in (0, 11):
        video = read_video(finished / "videos" / f"{k:02d}-base.mp4")
        assert video.fps == 8
        assert video.frames.shape == (5, 3, 256, 256)
        # every pixel is a square of 8, whose inside the loss of color resolution does not reach
        seen = video.frames[..., 4::8, 4::8].float() / 255
        assert (seen - base[1][k, 0]).abs().mean() < 0.02


def test_the_page_plays_the_films_and_needs_no_other_file(finished: Path) -> None:
    references = References()
    references.feed(page(finished))
    # two films of each of 12 prompts, two strips of each of the others, and the icon; charts are SVG
    assert len(references.found) == PROMPTS * 2 + 1
    assert all(reference.startswith("data:") for reference in references.found)
    films = re.findall(
        r"<video ([^>]*)src=\"data:video/mp4;base64,([^\"]+)\" aria-label=\"(\w+): ([^\"]+)\"", page(finished)
    )
    assert len(films) == 24
    assert {attributes for attributes, *_ in films} == {"autoplay loop muted playsinline "}
    prompts = json.loads((finished / "results.json").read_text(encoding="utf-8"))["prompts"]
    for i, (_, content, which, text) in enumerate(films):
        assert base64.b64decode(content) == (finished / "videos" / f"{i // 2:02d}-{which}.mp4").read_bytes()
        assert text.startswith(prompts[i // 2])
    assert not re.search(r"url\(|@import|<script", page(finished))
    assert "$" not in page(finished)


def test_the_other_prompts_stand_still_in_strips(finished: Path, base) -> None:
    inside = re.findall(r'<img[^>]* src="data:image/png;base64,([^"]+)" alt="base', page(finished))
    assert len(inside) == PROMPTS - 12
    shown = Image.open(io.BytesIO(base64.b64decode(inside[0])))
    assert shown.tobytes() == Videos(8.0).still(base[1][12, 0]).tobytes()
    assert page(finished).count('class="cards wide"') == 1


def test_a_strip_shows_frames_from_the_first_to_the_last() -> None:
    frames = torch.linspace(0, 1, 8)[:, None, None, None].expand(8, 3, 32, 32)
    image = strip([to_image(frame) for frame in enlarged(frames, 64)])
    assert image.size == (4 * 64 + 3 * 4, 64)
    assert [image.getpixel((68 * k + 32, 32))[0] for k in range(4)] == [round(255 * f / 7) for f in (0, 2, 5, 7)]
    assert strip([to_image(frame) for frame in frames[:2]]).size == (2 * 32 + 4, 32)


def test_large_frames_keep_their_size() -> None:
    assert enlarged(torch.zeros(2, 3, 320, 512), 256).shape == (2, 3, 320, 512)
    assert enlarged(torch.zeros(2, 3, 48, 64), 256).shape == (2, 3, 192, 256)


def test_the_sheet_shows_strips_before_and_after(finished: Path, base) -> None:
    sheet = Image.open(finished / "before_after.png").convert("RGB")
    expected = Videos(8.0).still(base[1][0, 0])
    width, height = expected.size
    places = ((x, y) for x in range(30, 70) for y in range(150, 220))
    assert any(sheet.crop((x, y, x + width, y + height)).tobytes() == expected.tobytes() for x, y in places)


def test_numbers(finished: Path, base) -> None:
    numbers = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert numbers["reward"] == "Light"
    assert (
        {"reward", "all", "motion", "count", "color", "shape", "binding", "dynamic", "diversity"}
        <= set(numbers["results"])
        <= set(Videos.labels)
    )
    assert len(set(numbers["prompts"])) == PROMPTS
    assert numbers["curves"]["updates"] == [0, 1, 2]
    for name in ("reward", "dynamic", "diversity"):
        assert numbers["results"][name]["base"] == pytest.approx(base[0][name].nanmean().item(), abs=1e-6)
    assert numbers["results"]["reward"]["aligned"] != numbers["results"]["reward"]["base"]


def test_what_is_printed(run: tuple[Path, str]) -> None:
    _, printed = run
    for label in (
        "reward",
        "exact check: all correct",
        "… motion",
        "dynamic degree",
    ):
        assert re.search(rf"^{re.escape(label)}.*…", printed, re.MULTILINE)
    written = [Path(line).name for line in printed.splitlines()[-4:]]
    assert written == ["index.html", "before_after.png", "results.json", "videos"]


def test_the_reward_of_a_clip_is_that_of_all_its_frames(base) -> None:
    """Though an update sees one of them."""
    torch.testing.assert_close(base[0]["reward"], base[1].mean((2, 3, 4, 5)))


def test_every_measurement_has_a_label(base) -> None:
    assert set(base[0]) == set(Videos.labels)


def test_renders_are_all_right_and_some_of_new_pairs() -> None:
    world = Videos(8.0)
    prompts = world.prompts(40, 0)
    clips = [parse_video(prompt) for prompt in prompts]
    pixels = draw_videos(clips, 0).float() / 255
    checks = world.check(pixels, prompts)
    for claim in set(checks) - {"dynamic"}:
        assert (checks[claim].nan_to_num(1.0) == 1).all(), claim
    assert checks["dynamic"].tolist() == [float(clip.motion.caption != "standing still") for clip in clips]
    assert (~checks["novel"].isnan()).tolist() == [clip.spec.novel for clip in clips]
    assert world.check(pixels[:3], prompts[:3])["all"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(("kind", "tag"), [("image/png", "img"), ("video/mp4", "video")])
def test_a_prompt_does_not_break_the_page(kind: str, tag: str) -> None:
    sample = Sample(Media(b"abc", 'a "red" <circle>', kind), "base", "1.00", True)
    written = report.page("title", "lead", [Samples("shown", [("<b>", [sample])])])
    assert re.search(rf"<{tag} [^>]*&#34;red&#34; &lt;circle&gt;", written)
    assert "<p>&lt;b&gt;</p>" in written
