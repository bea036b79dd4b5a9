"""The snippets of docs/use.md run on a random model."""

import re
from pathlib import Path

import pytest
import torch

from rlr.models import LoRA, StableDiffusion
from rlr.models.export import DiffusersLoRA

PAGE = (Path(__file__).parents[2] / "docs" / "use.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
HERE = {
    "torch.float16": "torch.float32",
    '.to("cuda")': "",
    "updates=200, sampler=DDIM(50)": "updates=1, sampler=DDIM(6)",
    "look_ahead": "first_order",
}
"""What a small machine without an accelerator writes in the place of the page."""


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_runs(number, random_sd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = StableDiffusion(str(random_sd()), LoRA(2))
    for weight in model.trainable.values():
        weight.data += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
    DiffusersLoRA().write(model, "export/diffusers")
    code = SNIPPETS[number].replace("CompVis/stable-diffusion-v1-4", str(random_sd()))
    for there, here in HERE.items():
        code = code.replace(there, here)
    before = set(tmp_path.iterdir())
    exec(compile(code, "use.md", "exec"), {})
    written = {path.name for path in set(tmp_path.iterdir()) - before}
    named = re.findall(r'(?:save|save_lora|save_pretrained|export|page)\("([\w.]+)"', code)
    assert written == set(named)


def test_the_formats_and_methods_of_the_page_are_all_there_are():
    from rlr.api import METHODS
    from rlr.models.export import FORMATS

    rows = re.findall(r"^\| (`[^|]+) \| ", PAGE, re.MULTILINE)
    named = [name for row in rows for name in re.findall(r"`([\w-]+)`", row)]
    assert set(named) - {"method", "--to"} == set(FORMATS) | set(METHODS)
    for name, kind in FORMATS.items():
        assert f"| `{name}` | `{kind.__name__}` |" in PAGE
