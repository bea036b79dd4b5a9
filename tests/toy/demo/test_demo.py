import io
import json
import re
from contextlib import redirect_stdout
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from PIL import Image

from rlr.chain import Chain
from rlr.evaluation.samples import SampleSet
from rlr.io.terminal import TERMINAL
from rlr.samplers import DDIM
from rlr.toy.demo.__main__ import CONFIGS, main
from rlr.toy.demo.evaluation import DemoEvaluation
from rlr.toy.demo.images import Images
from tests.modules.processes import run_group
from tests.toy.demo.toy import Light, Smear, evaluate

ROOT = Path(__file__).parents[3]

CONFIG = """
model:
  class_path: rlr.modules.ImageAlignment
  init_args:
    model: tests.toy.demo.toy.Smear
    sampler:
      class_path: rlr.samplers.DDIM
      init_args: {steps: 3}
    reward: tests.toy.demo.toy.Light
    estimator:
      class_path: rlr.estimators.RLR
      init_args: {length: 1}
    optimization:
      lr: 0.05
data:
  class_path: WorldPrompts
  init_args: {train: 16, batch_size: 4}
trainer:
  accelerator: cpu
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  enable_model_summary: false
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demo of two updates of a model that has learned nothing."""
    folder = tmp_path_factory.mktemp("demo")
    config = folder / "toy.yaml"
    config.write_text(CONFIG)
    out = folder / "results"
    words = f"--config {config} --out {out} --updates 2 --every 1 --prompts 14 --samples 2"
    assert main(words.split()) == 0
    return out


class References(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "srcset", "href", "data", "action")]


def test_the_page_needs_no_other_file(finished: Path) -> None:
    page = (finished / "index.html").read_text(encoding="utf-8")
    references = References()
    references.feed(page)
    # two images of each of 14 prompts, and the icon that stops browsers from asking for one
    assert len(references.found) == 14 * 2 + 1
    assert page.count("<svg") == 2
    assert all(reference.startswith("data:") for reference in references.found)
    assert not re.search(r"url\(|@import|<script", page)


def test_the_page_says_what_the_config_names_and_no_more(finished: Path) -> None:
    page = (finished / "index.html").read_text(encoding="utf-8")
    assert "The base is the Smear of the config, which was not made for the prompts shown here." in page
    assert "the reward, Light of the config, goes up" in page
    assert "ships with the library" not in page
    own = Images.words.done("Tiny", "TinyPickScore", 1, "RLR")
    assert own.startswith("The base is a small latent diffusion model in Stable Diffusion's own format that ships with")
    assert "1 update of RLR changed" in own
    assert "the reward, a small CLIP in PickScore's format, goes up" in own


def test_the_page_serves_phones_and_dark_rooms(finished: Path) -> None:
    page = (finished / "index.html").read_text(encoding="utf-8")
    assert 'name="viewport"' in page
    assert page.count("prefers-color-scheme: dark") == 1
    assert "$" not in page
    assert "<video" not in page
    assert not (finished / "videos").exists()


def test_pictures_open(finished: Path) -> None:
    with Image.open(finished / "before_after.png") as image:
        image.load()
        assert min(image.size) > 500


def test_the_sheet_shows_every_pixel_of_a_sample_as_a_square(finished: Path) -> None:
    import base64

    page = (finished / "index.html").read_text(encoding="utf-8")
    inside = re.search(r'<img[^>]* src="data:image/png;base64,([^"]+)" alt="base', page)
    assert inside
    sample = Image.open(io.BytesIO(base64.b64decode(inside[1])))
    zoomed = sample.resize((128, 128), Image.Resampling.NEAREST)
    sheet = Image.open(finished / "before_after.png").convert("RGB")
    assert sample.size == (32, 32)
    assert any(
        sheet.crop((x, y, x + 128, y + 128)).tobytes() == zoomed.tobytes() for x in range(70) for y in range(230)
    )


def test_numbers(finished: Path) -> None:
    numbers = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    assert {"command", "seed", "updates", "estimator", "device", "date", "commit", "versions", "results"} <= set(
        numbers
    )
    assert numbers["updates"] == 2
    assert numbers["estimator"] == "RLR"
    assert len(set(numbers["prompts"])) == 14
    assert set(numbers["results"]["reward"]) == {"base", "aligned", "difference", "low", "high"}
    assert numbers["curves"]["updates"] == [0, 1, 2]
    assert len(numbers["curves"]["training_reward"]) == 2
    for values in numbers["curves"]["held_out"].values():
        assert len(values) == 3


def test_the_base_is_the_model_before_any_update(finished: Path) -> None:
    from rlr.chain import Chain
    from rlr.samplers import DDIM
    from rlr.toy.demo.images import Images

    numbers = json.loads((finished / "results.json").read_text(encoding="utf-8"))
    base = evaluate(Images(), Chain(Smear(), DDIM(3)), Light(), numbers["prompts"])[0]["reward"].mean().item()
    assert numbers["results"]["reward"]["base"] == pytest.approx(base, abs=1e-6)
    assert numbers["results"]["reward"]["aligned"] != numbers["results"]["reward"]["base"]


def test_a_run_repeats_itself(finished: Path, tmp_path: Path) -> None:
    words = f"--config {finished.parent / 'toy.yaml'} --out {tmp_path} --updates 2 --every 0 --prompts 14"
    assert main(words.split()) == 0
    once, again = (json.loads((folder / "results.json").read_text())["results"] for folder in (finished, tmp_path))
    assert once == again


def test_one_of_several_processes_speaks_and_writes(tmp_path: Path) -> None:
    config = tmp_path / "toy.yaml"
    config.write_text(CONFIG)

    def work(rank: int) -> None:
        # Lightning reads it from the environment when it is imported, which was before the fork
        rank_zero_only.rank = rank  # type: ignore[attr-defined]
        words = f"--config {config} --out {tmp_path / f'results{rank}'} --updates 1 --every 0 --prompts 6 --trainer.devices 2"
        with redirect_stdout(io.StringIO()) as said:
            assert main(words.split()) == 0
        (tmp_path / f"said{rank}").write_text(said.getvalue())

    run_group(2, work, tmp_path)
    assert "exact check" in (tmp_path / "said0").read_text()
    assert (tmp_path / "said1").read_text() == ""
    assert (tmp_path / "results0" / "index.html").is_file()
    assert not (tmp_path / "results1" / "index.html").exists()
    assert json.loads((tmp_path / "results0" / "results.json").read_text())["updates"] == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "toy.yaml").write_text(CONFIG)
    assert main(["--config", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "file" / "demo")]) == 2
    message = capsys.readouterr().err
    assert "cannot be written" in message
    assert "--out" in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--updates", "0"], "--updates"),
        (["--samples", "1"], "--samples"),
    ],
)
def test_options_that_make_no_sense(
    words: list[str], named: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "toy.yaml").write_text(CONFIG)
    assert main(["--config", str(tmp_path / "toy.yaml"), "--out", str(tmp_path / "out"), *words]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_twin_aligns_the_built_in_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    small = "--updates 1 --every 0 --prompts 3 --data.batch_size 2 --model.sampler.steps 4"
    assert main(f"--model flow --out {tmp_path} {small}".split()) == 0
    numbers = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert (numbers["config"], numbers["estimator"]) == (CONFIGS["flow"], "HalfOrderRLR")
    config = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert "TinyFlow" in config
    assert "FlowSDE" in config
    assert numbers["results"]["reward"]["aligned"] != numbers["results"]["reward"]["base"]


def test_a_model_has_a_config_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert all((ROOT / file).is_file() for file in CONFIGS.values())
    with pytest.raises(SystemExit):
        main(["--model", "flow", "--config", CONFIGS["image"]])
    assert "not allowed with" in capsys.readouterr().err


def test_evaluation_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    state = torch.get_rng_state()
    evaluate(Images(), Chain(Smear(), DDIM(2)), Light(), ["a red circle", "a blue square"])
    assert torch.equal(state, torch.get_rng_state())


def test_sampling_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    watch = DemoEvaluation(prompts=2)
    watch.world = Images()
    module = SimpleNamespace(chain=Chain(Smear(), DDIM(2)), reward=Light())
    monkeypatch.setattr(TERMINAL, "period", 0.0)
    watch._measure(module, SampleSet(["a red circle", "a blue square"], 2, 0, 2))
    assert "sampling, sample 4/4" in capsys.readouterr().err
    TERMINAL.beat()
    # nothing is repeated afterwards
    assert capsys.readouterr().err == ""
