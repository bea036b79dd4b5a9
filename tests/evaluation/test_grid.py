"""The grid shows the samples themselves, before and after, on the same noise."""

import pytest
import torch
from PIL import Image, ImageChops, ImageDraw

from rlr.callbacks import EMA, Evaluation, SampleGrid
from rlr.data import Prompts
from rlr.evaluation import RewardMetric, SampleSet
from rlr.evaluation.evaluator import Evaluated
from rlr.evaluation.grid import caption
from rlr.evaluation.images import CARD, FAINT, INK, UNKNOWN, Card, _font, grid, scaled, to_image, wrap
from rlr.rewards import Combine
from tests.callbacks.test_evaluation import Scaled
from tests.modules.toy import WORDS, Level, align, run, weights


def data():
    return Prompts(list(WORDS), val=list(WORDS[:5]), batch_size=4)


def draw(tmp_path, steps=4, module=None, also=(), every=0, **settings):
    module = module or align()
    evaluation = Evaluation(displays=[SampleGrid(**settings)], every=every)
    run(module, data(), steps, callbacks=[evaluation, *also], default_root_dir=tmp_path)
    return module


def samples(module):
    batches = SampleSet(WORDS[:5], batch_size=4).batches(module.chain)
    return [to_image(pixels) for batch in batches for pixels in batch.pixels]


def contains(sheet, image):
    """Whether the sheet shows this sample, enlarged to squares, somewhere."""
    return holds(sheet, scaled(image))


def says(sheet, text, ink):
    """Whether a card of the sheet has this text in this color on it."""
    written = Image.new("RGB", (400, 30), CARD)
    ImageDraw.Draw(written).text((2, 2), text, ink, _font(14))
    return holds(sheet, written.crop(ImageChops.difference(written, Image.new("RGB", written.size, CARD)).getbbox()))


def holds(sheet, part):
    sheet, part = colors(sheet), colors(part)
    h, w = part.shape
    # the places where its rarest color is
    counts = dict(zip(*(found.tolist() for found in sheet.unique(return_counts=True)), strict=True))
    rare = min(part.unique().tolist(), key=lambda color: counts.get(color, 0))
    dy, dx = (part == rare).nonzero()[0].tolist()
    places = ((sheet == rare).nonzero() - torch.tensor([dy, dx])).tolist()
    return any(torch.equal(sheet[y : y + h, x : x + w], part) for y, x in places if min(y, x) >= 0)


def colors(image):
    """The color of each pixel as one number, with shape (H, W)."""
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3).int()
    return (pixels * torch.tensor([65536, 256, 1])).sum(-1)


def test_shows_base_and_present_samples(tmp_path):
    module = draw(tmp_path, number=3)
    sheet = Image.open(tmp_path / "samples" / "000004.png").convert("RGB")
    for image in [*samples(align())[:3], *samples(module)[:3]]:
        assert contains(sheet, image)
    assert not contains(sheet, samples(module)[3])


def test_each_sample_has_its_prompt_above_and_its_score_below(tmp_path):
    module = draw(tmp_path, number=3, module=align(reward=Scaled()))
    sheet = Image.open(tmp_path / "samples" / "000004.png").convert("RGB")
    for i, word in enumerate(WORDS[:3]):
        assert says(sheet, word, INK)
        for name, one in (("base", align(reward=Scaled())), ("aligned", module)):
            batch = next(iter(SampleSet(WORDS[:5], batch_size=4).batches(one.chain)))
            score = one.reward(batch.pixels, batch.prompts)[i].item()
            # in lines that are no wider than the sample, for the next one's begin there
            for line in (f"{name} {score:#.4g},", f"x100 {100 * score:#.4g}"):
                assert says(sheet, line, FAINT)
            assert not says(sheet, f"{name} {score + 0.01:#.4g},", FAINT)
    assert not says(sheet, WORDS[3], INK)


def test_draws_every_n_updates_and_at_the_end(tmp_path):
    draw(tmp_path, 5, number=1, every=2)
    assert sorted(path.name for path in (tmp_path / "samples").glob("*.png")) == [
        "000002.png",
        "000004.png",
        "000005.png",
    ]


def test_draws_the_average(tmp_path):
    ema = EMA(0.5)
    module = draw(tmp_path, also=[ema], number=2)
    sheet = Image.open(tmp_path / "samples" / "000004.png").convert("RGB")
    with ema.applied(module):
        assert contains(sheet, samples(module)[0])
    assert not contains(sheet, samples(module)[0])


def test_training_is_as_without(tmp_path):
    alone = align()
    run(alone, data(), 4)
    assert torch.equal(weights(draw(tmp_path, every=1)), weights(alone))


def test_a_combination_has_no_score_of_its_own(tmp_path):
    draw(tmp_path, 1, align(reward=Combine({"a": Level()}, {"a": 1.0})))
    draw(tmp_path, 1, align(reward=Combine({"a": Level(), "b": Scaled()}, {"a": 1.0, "b": 1.0})))
    assert (tmp_path / "samples" / "000001.png").is_file()


def test_a_score_is_shown_raw_and_on_its_published_scale():
    def shown(reward, score):
        found = Evaluated({reward.label: torch.tensor([[score]])})
        return caption("base", RewardMetric(reward), found, 0, SampleSet(["a"]))

    assert shown(Level(), 0.25) == "base 0.2500"
    assert shown(Scaled(), 0.25123) == "base 0.2512, x100 25.12"


def test_a_large_sample_is_reduced_and_a_small_one_enlarged():
    assert scaled(Image.new("RGB", (512, 512))).size == (256, 256)
    assert scaled(Image.new("RGB", (512, 320))).size == (256, 160)
    assert scaled(Image.new("RGB", (200, 200))).size == (200, 200)
    assert scaled(Image.new("RGB", (32, 32))).size == (128, 128)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="SampleGrid: expected number >= 1, found 0"):
        SampleGrid(number=0)


# ---------------------------------------------------------------- texts


def test_lines_are_no_wider_than_asked_for_with_and_without_blanks():
    tags = "masterpiece,best_quality,long_hair,looking_at_viewer,outdoors,cherry_blossoms,wind,sunset,8k"
    for text in (
        tags,
        f"a {tags} b",
        "a red circle left of a blue square",
        "雨の夜の東京、ネオンの光が濡れた道に映る" * 3,
    ):
        lines = wrap(text, 200, _font(14))
        assert all(_font(14).getlength(line) <= 200 for line in lines)
    assert "".join(wrap(tags, 200, _font(14))) == tags
    assert " ".join(wrap("a red circle left of a blue square", 120, _font(14))) == "a red circle left of a blue square"


def test_a_character_without_a_glyph_gets_a_mark():
    assert wrap("雨 in Zürich", 500, _font(14)) == [f"{UNKNOWN} in Zürich"]


def test_a_long_prompt_stays_within_its_card():
    """Beside a long prompt, the next card looks as it does beside a short one."""
    images = [Image.new("RGB", (32, 32))] * 2
    long, short = (grid([Card(p, images, ["", ""]), Card("b", images, ["", ""])], "t", "s") for p in ("x" * 400, "x"))
    half = long.width // 2
    assert long.crop((half, 0, *long.size)).tobytes() == short.crop((half, 0, *short.size)).tobytes()
    assert long.tobytes() != short.tobytes()


def test_pixels_that_are_not_finite_are_magenta():
    pixels = torch.zeros(3, 2, 2)
    pixels[1, 0, 1], pixels[2, 1, 0] = float("nan"), float("inf")
    image = to_image(pixels)
    assert [image.getpixel((x, y)) for y in (0, 1) for x in (0, 1)] == [
        (0, 0, 0),
        (255, 0, 255),
        (255, 0, 255),
        (0, 0, 0),
    ]
