"""The grid shows the samples themselves, before and after, on the same noise."""

import pytest
import torch
from PIL import Image, ImageChops, ImageDraw

from rlr.callbacks import EMA, SampleGrid
from rlr.callbacks.sample_grid import scored
from rlr.data import Prompts
from rlr.evaluation.measure import measure_pixels
from rlr.evaluation.pictures import CARD, FAINT, INK, _font, picture, scaled
from rlr.evaluation.sampling import paint
from rlr.rewards import Combine
from tests.callbacks.test_reward_evaluation import Scaled
from tests.modules.toy import WORDS, Level, align, run, weights


def data():
    return Prompts(list(WORDS), val=list(WORDS[:5]), batch_size=4)


def draw(tmp_path, steps=4, module=None, also=(), **settings):
    module = module or align()
    run(module, data(), steps, callbacks=[SampleGrid(**settings), *also], default_root_dir=tmp_path)
    return module


def samples(module):
    painted = paint(module.chain, list(WORDS[:5]), 1, 0, 4)
    return [picture(pixels) for batch in painted for pixels in batch.pixels]


def contains(sheet, image):
    """Whether the sheet shows this sample, enlarged to squares, somewhere."""
    return holds(sheet, scaled(image))


def says(sheet, text, ink):
    """Whether a card of the sheet has this text in this colour on it."""
    written = Image.new("RGB", (400, 30), CARD)
    ImageDraw.Draw(written).text((2, 2), text, ink, _font(14))
    return holds(sheet, written.crop(ImageChops.difference(written, Image.new("RGB", written.size, CARD)).getbbox()))


def holds(sheet, part):
    sheet = torch.frombuffer(bytearray(sheet.tobytes()), dtype=torch.uint8).view(sheet.height, sheet.width, 3).int()
    part = torch.frombuffer(bytearray(part.tobytes()), dtype=torch.uint8).view(part.height, part.width, 3).int()
    corner = (sheet == part[0, 0]).all(-1).nonzero().tolist()
    h, w = part.shape[:2]
    return any(torch.equal(sheet[y : y + h, x : x + w], part) for y, x in corner[:200_000] if y + h <= len(sheet))


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
            painted = next(iter(paint(one.chain, list(WORDS[:5]), 1, 0, 4)))
            score = measure_pixels(one.reward, painted.pixels, painted.prompts)[i].item()
            # in lines that are no wider than the sample, for the next one's begin there
            for line in (f"{name} {score:.4g},", f"x100 {100 * score:.4g}"):
                assert says(sheet, line, FAINT)
            assert not says(sheet, f"{name} {score + 0.01:.4g},", FAINT)
    assert not says(sheet, WORDS[3], INK)


def test_draws_every_n_updates_and_at_the_end(tmp_path):
    draw(tmp_path, 5, number=1, every=2)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["000002.png", "000004.png", "000005.png"]


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
    assert scored(Level(), 0.25) == "0.25"
    assert scored(Scaled(), 0.25123) == "0.2512, x100 25.12"


def test_a_large_sample_is_reduced_and_a_small_one_enlarged():
    assert scaled(Image.new("RGB", (512, 512))).size == (256, 256)
    assert scaled(Image.new("RGB", (512, 320))).size == (256, 160)
    assert scaled(Image.new("RGB", (200, 200))).size == (200, 200)
    assert scaled(Image.new("RGB", (32, 32))).size == (128, 128)


def test_settings_that_make_no_sense():
    with pytest.raises(ValueError, match="draws 1 or more prompts"):
        SampleGrid(number=0)
