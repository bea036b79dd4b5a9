"""The documentation: every page can be found, its commands run, and its numbers are those of the results."""

import ast
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_project import ROOT, tracked

DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
needs_site = pytest.mark.skipif(find_spec("mkdocs") is None, reason="the group docs is not installed")


def leaves(nav: Any) -> Iterator[str]:
    """The pages of a navigation, in order."""
    if isinstance(nav, str):
        yield nav
    else:
        for item in nav.values() if isinstance(nav, dict) else nav:
            yield from leaves(item)


def read(page: str) -> str:
    return (DOCS / page).read_text(encoding="utf-8")


def load(name: str) -> Any:
    """A module of ``docs/mkdocs``, which is no package."""
    spec = spec_from_file_location(name, DOCS / "mkdocs" / f"{name}.py")
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# ---------------------------------------------------------------- navigation


def test_every_page_is_in_the_navigation_once() -> None:
    named = list(leaves(SITE["nav"]))
    assert len(named) == len(set(named))
    pages = {path.relative_to(DOCS).as_posix() for path in tracked("docs/*.md")}
    assert pages <= set(named)
    for name in set(named) - pages:
        assert (ROOT / name).is_file() or name.startswith("reference/"), name


def test_the_index_links_every_page() -> None:
    pages = {path.relative_to(DOCS).as_posix() for path in tracked("docs/*.md")}
    assert set(re.findall(r"\]\((\w+\.md)\)", read("README.md"))) == pages - {"README.md"}


def test_the_reference_has_a_page_of_every_package_of_parts() -> None:
    tree = ast.parse((DOCS / "mkdocs" / "reference_pages.py").read_text(encoding="utf-8"))
    (packages,) = (
        ast.literal_eval(n.value) for n in tree.body if isinstance(n, ast.Assign) and "PACK" in ast.unparse(n)
    )
    assert {f"reference/{name}.md" for name in packages} == {n for n in leaves(SITE["nav"]) if "reference" in n}
    for module in [module for modules in packages.values() for module in modules]:
        assert find_spec(module), module


# ---------------------------------------------------------------- commands


def commands(page: str) -> list[list[str]]:
    """The command lines of a page, word by word."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", read(page), re.DOTALL | re.MULTILINE)
    lines = "".join(block for language, block in fenced if not language).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines if line.strip() and not line.startswith(("for ", "done"))]


PAGES = ("choose", "memory", "new_reward", "pitfalls", "quickstart", "reproduce", "several_gpus")


def test_experiments_that_pages_name_exist() -> None:
    from experiments.cli import parse
    from experiments.registry import EXPERIMENTS
    from experiments.settings import SETTINGS

    found = [line for page in PAGES for line in commands(f"{page}.md") if "experiments/run.py" in line]
    names = [parse(line[2:], [e.name for e in EXPERIMENTS], sorted(SETTINGS)).name for line in found]
    assert {"table1", "table2", "table3", "table4", "table5", "table6", "figure3", "figure4"} <= set(names)


def alternatives() -> list[list[str]]:
    """The options of the tables that choose a method, over a config of the built-in model."""
    text = read("choose.md")
    parts = [f"--model.estimator {part}" for part in re.findall(r"configs/image/parts/\w+\.yaml", text)]
    found = {*parts, *re.findall(r"`(--model\.estimator\S* [^`]+)`", text)}
    return [["--config=configs/image/tiny_backprop.yaml", *option.split()] for option in sorted(found)]


SHIPPED = [
    line[3:] for page in PAGES for line in commands(f"{page}.md") if line[:3] == ["python", "train.py", "fit"]
    and "configs/image" in " ".join(line)
]  # fmt: skip


@pytest.mark.parametrize("options", [*alternatives(), *SHIPPED], ids=" ".join)
def test_a_config_and_its_options_are_valid(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rlr.cli import main

    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as end:
        main(["fit", *options, "--print_config"])
    assert not end.value.code
    assert yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["estimator"]


def test_the_quickstart_ends_with_the_exported_lora(
    random_sd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files and commands are those of the page, on a random model in the place of the published one."""
    from rlr.cli import main

    page = read("quickstart.md").replace("stable-diffusion-v1-5/stable-diffusion-v1-5", str(random_sd()))
    files = {kind: re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yaml")}
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    # another test may have imported a module of this name
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    Path("mine.py").write_text(files["python"][0])
    Path("mine.yaml").write_text(files["yaml"][0])
    for words in commands("quickstart.md"):
        if words[0] == "printf":
            Path(words[-1]).write_text("".join(f"{line}\n" for line in words[2:-2]))
    small = ["--model.sampler.steps=4", "--model.optimization.accumulate=1", "--trainer.max_steps=1"]
    small += [
        "--data.batch_size=2",
        "--data.evaluation_samples=2",
        "--trainer.accelerator=cpu",
        "--model.optimization.lr=0.1",
    ]
    steps = [words[2:] for words in commands("quickstart.md") if words[:2] == ["python", "train.py"]]
    (fit, test, export), own = (
        steps[:3],
        [f"--trainer.enable_{name}=false" for name in ("progress_bar", "model_summary")],
    )
    assert main([*fit, *small, *own]).trainer.global_step == 1
    assert list(Path("runs/mine/samples").glob("*.png"))
    main([*test, *own])
    assert "diversity" in capsys.readouterr().out
    main(export)
    code = files["python"][1].replace("torch.float16", "torch.float32").replace('.to("cuda")', "")
    exec(compile(code, "quickstart.md", "exec"), {})
    assert {"lora", "dog.png"} <= {path.name for path in tmp_path.iterdir()}


# ---------------------------------------------------------------- numbers


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables, by their first cell; of several with one first cell, the first."""
    found: dict[str, list[str]] = {}
    for line in re.findall(r"^\|(.*)\|$", text, re.MULTILINE):
        name, *cells = (cell.strip() for cell in line.split("|"))
        found.setdefault(name, cells)
    return found


@pytest.mark.parametrize(
    ("here", "there"),
    {
        "DDPO": "DDPO",
        "`FirstOrder(1)`": "DRaFT-1",
        "`RLR`, half-order RLR": "RLR",
        "half-order RLR, all segments, look-ahead": "half-order RLR, all segments, look-ahead",
        "`AlignProp`, mean of 4 draws": "AlignProp, mean of 4 draws",
        "`AlignProp`, largest draw; `FirstOrder(AllSteps())`": "full backpropagation",
    }.items(),
)
def test_memory_is_that_of_the_results(here: str, there: str) -> None:
    measured = (ROOT / "experiments" / "results" / "tiny" / "table6.md").read_text(encoding="utf-8")
    assert rows(read("memory.md"))[here] == rows(measured)[there]


@pytest.mark.parametrize(
    ("here", "there"),
    {
        "`FirstOrder(1)`": "FirstOrder(1)",
        "`FirstOrder(all)`": "FirstOrder(all)",
        "`AlignProp`": "AlignProp",
        "`HalfOrderRLR`, all segments, look-ahead": "HalfOrderRLR(h), all, look-ahead",
        "`HalfOrderRLR`, all segments": "HalfOrderRLR(h), all segments",
        "`HalfOrder(1)`, DDPO's first update": "HalfOrder(1), REINFORCE",
        "`RLR`": "RLR(h)",
    }.items(),
)
def test_cosines_are_those_of_the_method(here: str, there: str) -> None:
    section = read("choose.md").partition("## What is measured")[2]
    variance, bias, *cosines = rows(section)[here]
    _, measured_bias, measured_variance, *measured = rows(read("method.md"))[there]
    assert cosines == measured
    assert float(variance) == pytest.approx(float(measured_variance), rel=0.05)
    value, least = re.findall(r"[\d.]+\d", measured_bias)[:2]
    assert bias == ("0 within error" if float(least) == 0 else value)


def test_a_pitfall_has_a_symptom_a_cause_and_a_fix() -> None:
    lines = [line for line in re.findall(r"^\|(.*)\|$", read("pitfalls.md"), re.MULTILINE) if "---" not in line]
    assert len(lines) > 25
    for line in lines:
        symptom, cause, _, fix = (cell.strip() for cell in line.split("|"))
        assert all((symptom, cause, fix)), line


def test_the_text_of_a_link_to_a_thread_has_its_number() -> None:
    links = re.findall(r"\[([^\]]+)\]\(https://github.com/([\w-]+/[\w-]+)/(?:issues|pull)/(\d+)\)", read("pitfalls.md"))
    assert len(links) > 20
    repository = ""
    for text, name, number in links:
        # "DanceGRPO 45, 57": the second names the repository of the first
        *words, stated = text.split()
        assert stated == number
        assert not words or words[0].lower() == name.partition("/")[2].lower()
        assert words or name == repository
        repository = name


# ---------------------------------------------------------------- the site


@needs_site
def test_markup_of_docstrings_becomes_markdown() -> None:
    markdown = load("rest_markup").markdown
    assert markdown("Of :math:`a\nb` and :class:`~rlr.chain.Chain`, :meth:`run`.") == "Of $a b$ and `Chain`, `run`."
    assert markdown("A:\n\n.. math::\n\n    x = 1\n    + 2\n\nB") == "A:\n\n\n$$\nx = 1\n+ 2\n$$\n\nB"
    assert markdown("A:\n\n.. math:: x = 1\n\nB") == "A:\n\n\n$$\nx = 1\n$$\n\nB"
    assert markdown("A:\n    .. math:: x\n        + y\n    B") == "A:\n\n    $$\n    x\n    + y\n    $$\n\n    B"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@needs_site
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not re.search(r'(?:src|<link[^>]+href)="https?://', text), page
        assert not re.search(r":(?:math|class|meth|func|attr|data|mod):`|\.\. math::", text), page


@needs_site
@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no chromium")
@pytest.mark.parametrize("page", ["method", "baselines", "look_ahead", "reference/estimators", "reference/samplers"])
def test_a_browser_shows_every_formula(site: Path, page: str) -> None:
    """Without a network, MathJax sets each formula and finds no error in it."""
    file = site / f"{page}.html"
    call = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=60000", "--dump-dom"]
    shown = subprocess.run([*call, file.as_uri()], capture_output=True, text=True, check=True, timeout=300).stdout
    assert shown.count("<mjx-container") == file.read_text(encoding="utf-8").count('class="arithmatex"') > 0
    assert "merror" not in re.sub(r"<(style|script).*?</\1>", "", shown, flags=re.DOTALL)
