"""HunyuanVideo 1.5: text within quotes, the published instruction, causal decoding, and what is refused."""

import inspect
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import HunyuanVideo15Pipeline
from diffusers.pipelines.hunyuan_video1_5.pipeline_hunyuan_video1_5 import extract_glyph_texts

from rlr.models import Frozen, HunyuanVideo15, Size
from rlr.models.hunyuan_text import GAP, INSTRUCTION, quotations
from tests.models.families import FAMILIES, Member

Folder = Callable[..., Path]
QUOTED = ['a sign that says "open"', "a red circle", 'the words “left” and "right", and "left" again']


def build(folder: Path, **options: Any) -> HunyuanVideo15:
    return HunyuanVideo15(str(folder), **{"trainable": Frozen(), "size": (16, 32), "frames": 5} | options)


@pytest.mark.parametrize("prompt", [*QUOTED, "", '""', 'an "odd quote', '"one" "two" "one"'])
def test_quotations_are_those_of_the_pipeline(prompt: str) -> None:
    assert quotations(prompt) == (extract_glyph_texts(prompt) or "")


def test_the_instruction_is_that_of_the_pipeline() -> None:
    parameters = inspect.signature(HunyuanVideo15Pipeline._get_mllm_prompt_embeds).parameters
    assert GAP.join(INSTRUCTION) == parameters["system_message"].default


def test_videos_of_prompts_with_quotes_are_those_of_the_pipeline(
    member: Callable[[str], Member], monkeypatch: pytest.MonkeyPatch
) -> None:
    found, size = member("hunyuan15"), FAMILIES["hunyuan15"].sizes[0]
    plain, noise = found.ours(4.0, 0.0, 2)
    monkeypatch.setattr("tests.models.families.PROMPTS", QUOTED[:2])
    videos, same = found.sample(found.base, 4.0, 0.0, 2, size)
    assert torch.equal(noise, same)
    torch.testing.assert_close(videos, found.theirs(noise, 4.0, 0.0, 2, size), rtol=0, atol=1e-4)
    assert (videos[0] - plain[0]).abs().max() > 1e-3


def test_prompts_without_quotes_have_no_glyphs(random_hunyuan15: Folder) -> None:
    model = build(random_hunyuan15())
    none = model.encode(QUOTED[1:2])
    assert none.tensors["glyphs"].shape == (1, 0, 16)
    assert none.mask("glyphs") is None
    both = model.encode(QUOTED[:2])
    lengths = both.mask("glyphs").sum(1).tolist()
    # a byte is a token, and there is an end
    assert lengths == [len('Text "open". ') + 1, 0]


def test_padding_is_not_read(random_hunyuan15: Folder) -> None:
    model = build(random_hunyuan15())
    condition = model.encode(QUOTED)
    x = torch.zeros(3, *model.latent_shape(model.size))
    with torch.no_grad():
        expected = model.denoise(x, 0.9, condition)
        for name in ("text", "glyphs"):
            condition.tensors[name][~condition.mask(name)] = 7.0
        torch.testing.assert_close(model.denoise(x, 0.9, condition), expected, rtol=0, atol=1e-5)


def test_chosen_frames_are_those_of_the_whole_video(random_hunyuan15: Folder) -> None:
    model = build(random_hunyuan15())
    x = torch.randn(2, *model.latent_shape(model.size), generator=torch.Generator().manual_seed(0))
    whole, decoded = model.decode(x), []
    decode = model.vae.decode
    model.vae.decode = lambda z: decoded.append(z.shape[2]) or decode(z)
    assert whole.shape == (2, 5, 3, 16, 32)
    for frames, latents in (([0], 1), ([2, 1], 2), ([4], 3), ([3], 3)):
        torch.testing.assert_close(model.decode(x, frames), whole[:, frames], rtol=0, atol=1e-5)
        assert set(decoded) == {latents}
        decoded.clear()


def test_sizes_and_frames_fit(random_hunyuan15: Folder) -> None:
    model = build(random_hunyuan15())
    assert model.size == Size(16, 32, 5, 24.0)
    assert model.latent_shape(Size(20, 24, 9)) == (4, 5, 5, 6)
    with pytest.raises(ValueError, match="expected a multiple of 2 plus 1 for this HunyuanVideo15, got 4"):
        build(random_hunyuan15(), frames=4)


def test_other_transformers_are_refused(random_hunyuan15: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_hunyuan15(), tmp_path / "other")
    file = folder / "transformer" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_meanflow": True}))
    with pytest.raises(ValueError, match=r"lacks weights of|and no second time"):
        build(folder)


def test_a_folder_without_the_tokenizer_of_bytes_is_refused(random_hunyuan15: Folder, tmp_path: Path) -> None:
    folder = shutil.copytree(random_hunyuan15(), tmp_path / "lost")
    for file in (folder / "tokenizer_2").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"has no readable tokenizer_2/ .it holds no vocabulary"):
        build(folder)
