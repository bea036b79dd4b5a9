"""The notebook runs as it stands; with fewer updates in every test run."""

import json
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "align.ipynb"


def run(folder, monkeypatch, updates: int) -> dict[str, object]:
    """Runs the cells in a folder and returns their names."""
    cells = [cell for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(folder)
    code = "\n".join("".join(cell["source"]) for cell in cells)
    assert "updates=40" in code
    found: dict[str, object] = {}
    exec(compile(code.replace("updates=40", f"updates={updates}"), NOTEBOOK.name, "exec"), found)
    return found


def test_the_cells_run(tmp_path, monkeypatch):
    found = run(tmp_path, monkeypatch, updates=2)
    assert len(found["rewards"]) == 2
    assert found["sheet"].size == (640, 256)
    assert (tmp_path / "aligned_run" / "index.html").is_file()
    assert {file.name for file in (tmp_path / "aligned_lora").iterdir()} == {
        "README.md",
        "pytorch_lora_weights.safetensors",
    }


@pytest.mark.slow
def test_the_reward_rises(tmp_path, monkeypatch):
    rewards = run(tmp_path, monkeypatch, updates=40)["rewards"]
    assert sum(rewards[-5:]) / 5 > sum(rewards[:5]) / 5 + 0.05
