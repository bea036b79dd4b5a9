"""The files around the package: what they promise, and that they agree with each other."""

import ast
import hashlib
import json
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
import tomllib
import types
import zipfile
from importlib import import_module
from importlib.util import module_from_spec, spec_from_loader
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.rewards.folder import FOLDER

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def tracked(*patterns: str) -> list[Path]:
    """The files of the repository; without one (an unpacked archive), all that are there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if found.returncode:
        pytest.skip("not a repository")
    return [path for line in found.stdout.splitlines() if (path := ROOT / line).is_file()]


# ---------------------------------------------------------------- make


def test_every_target_is_listed_by_make_help() -> None:
    rules = re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    # inside `make test` a second make would print the folder that it enters
    call = ["make", "--no-print-directory", "help"]
    printed = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = [line.split(maxsplit=1)[0] for line in printed.splitlines()]
    assert listed == rules
    assert {"help", "install", "lock", "lint", "test", "test-slow", "demo", "bench"} <= set(listed)
    assert all(len(line.split(maxsplit=1)) == 2 for line in printed.splitlines())


@pytest.mark.parametrize("target", ["demo", "demo-video", "test", "test-slow", "lint", "bench"])
def test_targets_install_what_they_need(target: str) -> None:
    # -W: as if the lock had just changed
    dry = subprocess.run(
        ["make", "-n", "-W", "requirements.lock", target], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = dry.stdout.splitlines()
    sync = next(i for i, line in enumerate(lines) if "pip sync --require-hashes" in line)
    assert any(".venv/bin/" in line and "uv" not in line for line in lines[sync + 1 :])


@pytest.mark.parametrize(
    "words", [["bench", "SHAPE=sd14"], ["bench", "ARGS=--shape sd14"]], ids=["variable", "argument"]
)
def test_the_size_of_the_benchmark_is_chosen_either_way(words: list[str]) -> None:
    dry = subprocess.run(["make", "-n", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    # argparse takes the last
    assert re.findall(r"--shape (\w+)", dry.stdout)[-1] == "sd14"


def test_continuous_integration_runs_lint_and_test() -> None:
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert lines[-2:] == ["make lint", "make test"]
    assert "set -euo pipefail" in lines
    for script in ("run", "uv"):
        assert (ROOT / ".ci" / script).stat().st_mode & 0o111


# ---------------------------------------------------------------- dependencies

CLEAN = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([CLEAN, CLEAN], 0, "0 known vulnerabilities in 2 packages; 0 are not"),
        ([CLEAN, SKIPPED], 0, "0 known vulnerabilities in 1 packages; 1 are not"),
        ([CLEAN, FAULTY, SKIPPED], 1, "b 2: CVE-1, mended in 3"),
        ([SKIPPED, SKIPPED], 0, "nothing was audited"),
        (None, 0, "nothing was audited (no route to host)"),
    ],
    ids=["clean", "in part", "faulty", "no index", "offline"],
)
def test_an_audit_fails_for_a_vulnerability_alone(packages: object, status: int, said: str, tmp_path: Path) -> None:
    (tmp_path / "said").write_text("" if packages is None else json.dumps({"dependencies": packages}))
    stub = tmp_path / "python"
    stub.write_text(f"#!/bin/sh\ncat {tmp_path / 'said'}\necho no route to host >&2\nexit 1\n")
    stub.chmod(0o755)
    run = subprocess.run([str(ROOT / ".ci" / "audit"), str(stub)], capture_output=True, text=True, check=False)
    assert (run.returncode, said in run.stdout) == (status, True)


def bill(folder: Path, lock: Path = ROOT / "requirements.lock", *options: str) -> dict[str, Any]:
    """The bill of materials of a lock, as `make sbom` writes it."""
    dry = subprocess.run(["make", "-n", "sbom"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (line,) = re.findall(r"-m (cyclonedx_py .*)", dry.replace("\\\n", " "))
    line = line.replace("dist/rlr.cdx.json", str(folder / "a.json")).replace("requirements.lock", str(lock))
    subprocess.run([sys.executable, "-W", "ignore", "-m", *line.split(), *options], cwd=ROOT, check=True)
    return json.loads((folder / "a.json").read_text())


def check_bill(found: dict[str, Any], locked: dict[str, list[str]]) -> None:
    """Every locked package is listed, with all its hashes, and no other one."""
    listed = {part["name"]: part for part in found["components"]}
    assert (found["bomFormat"], found["metadata"]["component"]["name"]) == ("CycloneDX", "rlr")
    assert set(listed) == set(locked)
    for name, lines in locked.items():
        hashes = {entry["content"] for place in listed[name]["externalReferences"] for entry in place["hashes"]}
        assert hashes == set(re.findall(r"sha256:([0-9a-f]{64})", "\n".join(lines)))


def test_the_bill_of_materials_holds_every_locked_package_with_its_hashes(tmp_path: Path) -> None:
    # comparing each address with the grammar of addresses takes ten times as long as all else
    check_bill(bill(tmp_path, ROOT / "requirements.lock", "--no-validate"), requirements())


@pytest.mark.parametrize("every", [40, pytest.param(1, marks=pytest.mark.slow)], ids=["some packages", "all packages"])
def test_the_bill_of_materials_is_valid(every: int, tmp_path: Path) -> None:
    """The command itself compares what it writes with the schema of CycloneDX."""
    locked = dict(list(requirements().items())[::every])
    (tmp_path / "some.lock").write_text("\n".join(line for lines in locked.values() for line in lines))
    check_bill(bill(tmp_path, tmp_path / "some.lock"), locked)


def test_a_release_has_the_hashes_of_its_archives_and_of_the_bill_of_materials(tmp_path: Path) -> None:
    """The command that hashes runs on a small folder; a file that is changed afterwards is found."""
    dry = subprocess.run(["make", "-n", "release"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    lines = dry.replace("\\\n", " ").splitlines()
    places = [
        next(i for i, line in enumerate(lines) if word in line) for word in ("cyclonedx_py", "uv build", "sha256sum")
    ]
    assert places == sorted(places)
    assert "rm -f dist/*.whl dist/*.tar.gz dist/SHA256SUMS" in lines
    dist = tmp_path / "dist"
    dist.mkdir()
    names = {"rlr-1-py3-none-any.whl", "rlr-1.tar.gz", "rlr.cdx.json"}
    for name in names:
        (dist / name).write_text(name)
    subprocess.run(["sh", "-c", lines[places[-1]]], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
    found = dict(reversed(line.split()) for line in (dist / "SHA256SUMS").read_text().splitlines())
    assert found == {name: hashlib.sha256(name.encode()).hexdigest() for name in names}
    check = ["sha256sum", "--check", "--status", "SHA256SUMS"]
    assert subprocess.run(check, cwd=dist, check=False).returncode == 0
    (dist / "rlr-1.tar.gz").write_text("another")
    assert subprocess.run(check, cwd=dist, check=False).returncode == 1


def requirements() -> dict[str, list[str]]:
    """The locked packages and the lines of each."""
    blocks: dict[str, list[str]] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        if match := re.match(r"([a-z0-9][a-z0-9._-]*)==", line):
            name = match[1]
            blocks[name] = []
        if blocks:
            blocks[name].append(line)
    return blocks


def test_every_locked_package_has_a_hash() -> None:
    locked = requirements()
    assert len(locked) > 100
    for name, lines in locked.items():
        assert any(re.search(r"--hash=sha256:[0-9a-f]{64}", line) for line in lines), name


def test_the_lock_names_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(-i|--index-url|--extra-index-url|--find-links|-f)\b", text, re.MULTILINE)


def test_the_lock_holds_every_dependency() -> None:
    locked = set(requirements())
    groups = PROJECT["dependency-groups"]
    extras = [line for lines in PROJECT["project"]["optional-dependencies"].values() for line in lines]
    wanted = [*PROJECT["project"]["dependencies"], *extras, *(line for lines in groups.values() for line in lines)]
    # an extra may name another one
    names = {re.split(r"[^A-Za-z0-9._-]", line)[0].lower().replace("_", "-") for line in wanted} - {"rlr"}
    assert names <= locked


def test_the_site_has_the_same_packages_as_an_extra_and_as_a_group() -> None:
    assert PROJECT["project"]["optional-dependencies"]["docs"] == PROJECT["dependency-groups"]["docs"]


def test_the_changelog_gives_a_reason_for_every_dependency() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    listed = {
        name.strip() for line in re.findall(r"^- ([a-z][\w ,-]*):", text, re.MULTILINE) for name in line.split(",")
    }
    groups = PROJECT["dependency-groups"]
    wanted = [*PROJECT["project"]["dependencies"], *(line for lines in groups.values() for line in lines)]
    assert {re.split(r"[^A-Za-z0-9._-]", line)[0] for line in wanted} <= listed


def imported(tree: ast.AST) -> set[str]:
    """The modules that some code imports, and what it takes from them, by their whole names."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_mypy_follows_every_library_that_the_code_imports() -> None:
    """It passes over libraries that only other libraries use."""
    passed_over = [
        pattern.removesuffix(".*")
        for override in PROJECT["tool"]["mypy"]["overrides"]
        if override["follow_imports"] == "skip"
        for pattern in override["module"]
    ]
    assert len(passed_over) > 5
    files = tracked("rlr/*.py", "experiments/*.py")
    names = {name for path in files for name in imported(ast.parse(path.read_text(encoding="utf-8")))}
    lost = {name for name in names for skip in passed_over if name == skip or name.startswith(f"{skip}.")}
    assert {name.split(".")[0] for name in lost} == {"diffusers"}


# ---------------------------------------------------------------- layers


LAYERS, APART, _ = PROJECT["tool"]["importlinter"]["contracts"]


def test_all_but_the_built_in_world_may_not_import_it() -> None:
    """import-linter checks that the layers are all modules there are."""
    modules = {f"rlr.{name}" for layer in LAYERS["layers"] for name in layer.split(" | ")}
    assert set(APART["source_modules"]) == modules - {"rlr.toy"}
    assert APART["forbidden_modules"] == ["rlr.toy"]
    assert not any("ignore_imports" in contract for contract in (LAYERS, APART))


def test_the_rules_list_the_layers() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (listed,) = re.findall(r"Imports go one way: `([^`]+)`", text)
    assert " ".join(listed.split()).split(" → ") == LAYERS["layers"]


def test_no_other_part_names_the_built_in_world() -> None:
    """Not even as text, which import-linter does not read."""
    inside, outside = (
        [path for path in tracked("rlr/*.py") if path.is_relative_to(ROOT / "rlr" / "toy") is within]
        for within in (True, False)
    )
    assert [path for path in outside if "rlr.toy" in path.read_text(encoding="utf-8")] == []
    assert any("rlr.toy" in path.read_text(encoding="utf-8") for path in inside)


# ---------------------------------------------------------------- files


def test_the_version_is_one() -> None:
    import rlr

    version = PROJECT["project"]["version"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert {rlr.__version__, str(cited["version"]), released[0]} == {version}


def test_the_citation_has_what_its_format_requires() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license", "type"} <= set(cited)
    assert cited["license"] == PROJECT["project"]["license"]
    (paper,) = cited["references"]
    assert paper["title"].startswith("Zeroth-order Informed Fine-Tuning for Diffusion Model")
    assert len(paper["authors"]) == 11


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    # written so that this file does not contain them
    places = re.compile("|".join(f"/{top}/" for top in ("work", "home", "root", "Users", "mnt")))
    texts = (".py", ".md", ".yaml", ".toml", ".cff", ".lock", ".json", ".txt", ".html", "Makefile", "run", "uv", ".csv")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path in tracked()
        if path.name.endswith(texts) and path.stat().st_size < 5_000_000
        for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if places.search(line)
    ]
    assert found == []


def prose(document: Path) -> str:
    """The text of a document without its blocks of code."""
    return re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_links_in_documents_lead_to_files_and_headings() -> None:
    for document in tracked("*.md"):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)[^)]*\)", prose(document)):
            if "://" not in target:
                file = document.parent / target if target else document
                assert file.exists(), f"{document.name}: {target}"
                assert not anchor or anchor in anchors(file), f"{document.name}: {target}#{anchor}"


def test_configs_in_documents_exist() -> None:
    made_up = {path for path, _, _ in blocks()}
    for document in tracked("*.md"):
        for config in set(re.findall(r"configs/\w+/\w+\.yaml", document.read_text(encoding="utf-8"))) - made_up:
            assert (ROOT / config).is_file(), f"{document.name}: {config}"


def test_the_wheel_holds_what_is_loaded_at_run_time(tmp_path: Path) -> None:
    command = [str(ROOT / ".ci" / "uv"), "build", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if re.search(r"Failed to (fetch|resolve)|Could not connect|error sending request", built.stderr):
        pytest.skip("the build backend cannot be fetched without network")
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        inside = {info.filename: info.file_size for info in archive.infolist()}
    data = [p.relative_to(ROOT).as_posix() for p in tracked("rlr") if p.suffix not in (".py", ".pyc")]
    assert "rlr/evaluation/page.html" in data
    assert set(data) <= set(inside)
    weights = sum(size for name, size in inside.items() if name.startswith("rlr/toy/assets/"))
    assert weights <= 22 * 2**20
    assert not any(name.split("/")[0] in ("tests", "runs", "configs", "experiments") for name in inside)
    shipped = {f"rlr/{p.relative_to(ROOT).as_posix()}" for p in tracked("configs")}
    assert shipped == {name for name in inside if name.startswith("rlr/configs/")}
    scripts = next(name for name in inside if name.endswith("entry_points.txt"))
    with zipfile.ZipFile(wheel) as archive:
        assert "rlr = rlr.__main__:console" in archive.read(scripts).decode()


SERVER = ("rlr.rewards.remote.server", "rlr.rewards.remote.request_timer")
"""The modules that need the extra ``serve``."""

EXTRAS = ("av", "decord", "starlette", "uvicorn", "vbench", "cv2", "clip", "easydict", "pyiqa")


def import_all_without(missing: tuple[str, ...]) -> None:
    """Imports the package anew where some others cannot be imported."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("rlr", *missing)]:
        del sys.modules[name]
    sys.modules.update(dict.fromkeys(missing))
    for module in pkgutil.walk_packages([str(ROOT / "rlr")], "rlr."):
        if module.name not in (*SERVER, "rlr.__main__") and "__main__" not in module.name:
            import_module(module.name)


@pytest.mark.parametrize(("missing", "works"), [(EXTRAS, True), (("safetensors", *EXTRAS), False)])
def test_the_core_imports_nothing_of_an_extra(missing: tuple[str, ...], works: bool) -> None:
    """Everything but the server of rewards imports where the packages of the extras are missing."""
    # a process that has imported torch already
    child = multiprocessing.get_context("fork").Process(target=import_all_without, args=(missing,))
    child.start()
    child.join()
    assert (child.exitcode == 0) == works


def tables(page: str) -> dict[str, dict[str, str]]:
    """The tables of a document by the first cell of the head: the last cell of each row by its first cell."""
    found: dict[str, dict[str, str]] = {}
    for block in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *rows = [line.strip("| ").split(" | ") for line in block.splitlines()]
        found.setdefault(head[0], {}).update({cells[0]: cells[-1] for cells in rows})
    return found


def test_the_configuration_page_lists_every_argument() -> None:
    import inspect

    import rlr.estimators
    from rlr.estimators import Penalty
    from rlr.modules import ImageAlignment
    from rlr.modules.memory import Memory
    from rlr.modules.optimization import Optimization

    page = tables((ROOT / "docs" / "configuration.md").read_text(encoding="utf-8"))
    owners = {
        "argument": ImageAlignment,
        "argument of `optimization`": Optimization,
        "argument of `penalty`": Penalty,
        "argument of `memory`": Memory,
    }
    for head, owner in owners.items():
        listed = [name for cell in page[head] for name in re.findall(r"`(\w+)`", cell)]
        assert listed == list(inspect.signature(owner).parameters), owner.__name__
    estimators = [
        name
        for name, member in ((name, getattr(rlr.estimators, name)) for name in dir(rlr.estimators))
        if isinstance(member, type) and issubclass(member, rlr.estimators.Estimator) and not inspect.isabstract(member)
    ]
    assert {"RLR", "HalfOrderRLR", "FirstOrder", "HalfOrder", "ZerothOrder", "DDPO", "AlignProp"} <= set(estimators)
    for name in estimators:
        arguments = {
            a for a in inspect.signature(getattr(rlr.estimators, name)).parameters if not a.endswith("_weight")
        }
        assert arguments <= set(re.findall(r"`(\w+)`", page["class"][f"`{name}`"])), name


# ---------------------------------------------------------------- size

MOST_LINES, MOST_OF_A_FUNCTION, MOST_ARGUMENTS = 400, 45, 12


def oversized(path: Path) -> list[str]:
    """Names what is too long in a file: the file itself, functions, and constructors with too many arguments."""
    text = path.read_text(encoding="utf-8")
    found = [f"{path.name}: {n} lines"] if (n := len(text.splitlines())) > MOST_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            arguments = len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) - 1
            if length > MOST_OF_A_FUNCTION:
                found.append(f"{path.name}:{node.lineno}: {node.name} has {length} lines")
            if node.name == "__init__" and arguments > MOST_ARGUMENTS:
                found.append(f"{path.name}:{node.lineno}: a constructor has {arguments} arguments")
        elif isinstance(node, ast.ClassDef) and (n := dataclass_fields(node)) > MOST_ARGUMENTS:
            found.append(f"{path.name}:{node.lineno}: the dataclass {node.name} has {n} arguments")
    return found


def dataclass_fields(node: ast.ClassDef) -> int:
    """The number of a dataclass's own fields; 0 for another class."""
    if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        return 0
    return sum(isinstance(statement, ast.AnnAssign) for statement in node.body)


def test_files_functions_and_constructors_are_small() -> None:
    found = [line for path in tracked("rlr/*.py") for line in oversized(path)]
    assert found == []


def test_what_is_too_large_is_found(tmp_path: Path) -> None:
    """The law above can fail."""
    arguments = ", ".join(f"a{i}" for i in range(13))
    fields = "".join(f"    a{i}: int\n" for i in range(13))
    body = "\n".join(["    def __init__(self, " + arguments + "):", *["        pass"] * 46])
    file = tmp_path / "large.py"
    file.write_text(f"class A:\n{body}\n\n@dataclass(frozen=True)\nclass B:\n{fields}" + "\n" * 400)
    assert [line.split(": ", 1)[1] for line in oversized(file)] == [
        f"{len(file.read_text().splitlines())} lines",
        "the dataclass B has 13 arguments",
        "__init__ has 47 lines",
        "a constructor has 13 arguments",
    ]


# ---------------------------------------------------------------- CONTRIBUTING.md


def blocks() -> list[tuple[str, str, str]]:
    """The code blocks of CONTRIBUTING.md: the path on the first line, the language, the code."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    found = re.findall(r"```(python|yaml)\n# (\S+)\n(.*?)```", text, re.DOTALL)
    return [(path, language, code) for language, path, code in found]


EXAMPLES = [
    (path, code, config)
    for (path, language, code), (_, other, config) in pairwise(blocks())
    if (language, other) == ("python", "yaml")
]
EXPORTER = blocks()[-1]


@pytest.fixture
def example(request: pytest.FixtureRequest) -> types.ModuleType:
    """The module of an example, under the name that it would have in the package."""
    path, code = request.param[0], request.param[-1] if request.param is EXPORTER else request.param[1]
    name = path.removesuffix(".py").replace("/", ".")
    spec = spec_from_loader(name, loader=None)
    assert spec
    module = module_from_spec(spec)
    exec(compile(code, path, "exec"), module.__dict__)
    # it stays, as an imported module does: jsonargparse looks for subclasses wherever they are
    sys.modules[name] = module
    return module


def test_there_is_an_example_of_every_family() -> None:
    assert [path.split("/")[1] for path, _, _ in EXAMPLES] == ["rewards", "estimators", "models", "data", "evaluation"]
    assert EXPORTER[0] == "rlr/models/export/plain.py"
    command = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path, code, config in [*EXAMPLES, (EXPORTER[0], EXPORTER[2], command)]:
        assert not (ROOT / path).exists(), "an example must not shadow a file"
        statements = [
            line for line in code.splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))
        ]
        assert len(statements) <= 20
        assert path.removesuffix(".py").replace("/", ".") in config


@pytest.mark.parametrize("example", EXAMPLES, indirect=True, ids=[path for path, _, _ in EXAMPLES])
def test_an_example_trains(example: types.ModuleType, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """One file and one config are enough: an update changes the weights."""
    from rlr.cli import main

    config = next(text for path, _, text in EXAMPLES if path.removesuffix(".py").replace("/", ".") == example.__name__)
    (tmp_path / "example.yaml").write_text(config)
    cli = main(
        [
            "fit",
            f"--config={tmp_path / 'example.yaml'}",
            *_small(config, request),
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert cli.trainer.global_step == 1
    assert cli.trainer.callback_metrics["gradient/total"] > 0
    if "Evaluation" in config:
        found = json.loads((tmp_path / "evaluation" / "fit" / "results.json").read_text())
        assert "Saturation" in json.dumps(found)


@pytest.mark.parametrize("example", [EXPORTER], indirect=True, ids=[EXPORTER[0]])
def test_the_example_of_an_exporter_exports(
    example: types.ModuleType, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A trained model passes the exporter's own check; the base model does not."""
    from rlr.cli import main

    config = next(text for path, _, text in EXAMPLES if "redness" in path).replace(
        "rlr.rewards.redness.Redness", "Brightness"
    )
    (tmp_path / "example.yaml").write_text(config)
    small = [
        f"--config={tmp_path / 'example.yaml'}",
        *_small(config, request),
        f"--trainer.default_root_dir={tmp_path}",
    ]
    main(["fit", *small, "--model.optimization.lr=0.1"])
    checkpoint = f"--ckpt_path={tmp_path / 'last.ckpt'}"
    exporter = f"--exporter={example.__name__}.PlainWeights"
    main(["export", *small, checkpoint, exporter, f"--folder={tmp_path / 'plain'}"])
    assert (tmp_path / "plain" / "weights.safetensors").is_file()


@pytest.fixture
def readme(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The blocks of the README by their language, with the files of its example in the working directory."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    folder = request.getfixturevalue("random_sd")()
    text = text.replace("stable-diffusion-v1-5/stable-diffusion-v1-5", str(folder))
    blocks: dict[str, list[str]] = {"python": [], "yaml": [], "": []}
    for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        blocks[kind].append(block)
    (tmp_path / "mine.py").write_text(blocks["python"][0])
    (tmp_path / "mine.yaml").write_text(blocks["yaml"][0])
    (tmp_path / "prompts.txt").write_text("a red picture\na blue picture\n")
    (tmp_path / "held_out.txt").write_text("a green picture\n")
    monkeypatch.syspath_prepend(tmp_path)
    # another test may have imported a module of this name
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(tmp_path)
    return blocks


def test_the_example_of_the_readme_trains_and_leaves(
    readme: dict[str, list[str]], request: pytest.FixtureRequest
) -> None:
    from rlr.cli import main

    (block,) = [block for block in readme[""] if "mine.yaml" in block]
    fit, test, export = [line.split()[2:] for line in block.splitlines()]
    small = [*_small(readme["yaml"][0], request), "--model.optimization.accumulate=1", "--model.optimization.lr=0.1"]
    cli = main([*fit, *small])
    assert cli.trainer.global_step == 1
    assert cli.trainer.callback_metrics["gradient/total"] > 0
    assert {"config.yaml", "index.html", "last.ckpt", "lora", "metrics.csv", "samples"} <= set(os.listdir("runs/mine"))
    main(test)
    assert json.loads(Path("runs/mine/evaluation/test/results.json").read_text())["sets"]["PromptFile"]["prompts"] == [
        "a green picture"
    ]
    main(export)
    assert Path("runs/mine/export/diffusers/pytorch_lora_weights.safetensors").is_file()


def test_other_methods_that_the_readme_names_fit_its_example(
    readme: dict[str, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    from rlr.cli import main

    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    found = re.findall(r"`(--model\.estimator [^`]+)`", text)
    kinds = []
    for options in found:
        part = options.replace("configs/", f"{ROOT / 'configs'}/")
        with pytest.raises(SystemExit) as end:
            main(["fit", "--config=mine.yaml", *part.split(), "--print_config"])
        assert not end.value.code
        kinds.append(yaml.safe_load(capsys.readouterr().out)["model"]["init_args"]["estimator"]["class_path"])
    assert [kind.rpartition(".")[2] for kind in kinds] == ["HalfOrderRLR", "GRPO"]


def test_the_python_of_the_readme_runs(readme: dict[str, list[str]]) -> None:
    from diffusers import StableDiffusionPipeline

    from rlr import DDIM

    path = yaml.safe_load(readme["yaml"][0])["model"]["init_args"]["model"]["init_args"]["model"]["init_args"]["path"]
    names = {"pipe": StableDiffusionPipeline.from_pretrained(path), "DDIM": DDIM}
    small = "updates=1, batch_size=2, accumulate=1, lr=0.1, sampler=DDIM(4)"
    assert "updates=200" in readme["python"][1]
    code = readme["python"][0] + readme["python"][1].replace("updates=200", small)
    exec(compile(code, "README.md", "exec"), names)
    assert Path("cat.png").is_file()
    assert Path("runs/warmth/index.html").is_file()
    assert Path("lora/pytorch_lora_weights.safetensors").is_file()


# ---------------------------------------------------------------- docs/evaluation.md

TOY = """
model:
  class_path: ImageAlignment
  init_args:
    model: {class_path: Guidance, init_args: {model: {class_path: Tiny}}}
    sampler: {class_path: DDIM, init_args: {steps: 2}}
    reward: Brightness
    estimator: {class_path: FirstOrder, init_args: {steps: 1}}
data: {class_path: WorldPrompts, init_args: {train: 4, held_out: 2, batch_size: 2}}
trainer: {accelerator: cpu, max_epochs: -1, max_steps: 1, limit_val_batches: 0, enable_progress_bar: false}
"""

SNIPPETS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_a_snippet_of_the_evaluation_page_runs(
    snippet: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Merged into a config of the built-in world, with a random model in the place of the built-in one."""
    from rlr.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_SILENT", "true")
    for place in ("DATA", "CACHE", "CONFIG", "ARTIFACT"):
        monkeypatch.setenv(f"WANDB_{place}_DIR", str(tmp_path / "wandb"))
    (tmp_path / "toy.yaml").write_text(TOY)
    (tmp_path / "over.yaml").write_text(snippet)
    path = f"--model.init_args.model.init_args.model.init_args.path={request.getfixturevalue('random_sd')()}"
    cli = main(["fit", "--config=toy.yaml", "--config=over.yaml", path, "--trainer.default_root_dir=out"])
    named = {line.split()[-1] for line in snippet.splitlines() if line.startswith("    - class_path")}
    built = {type(thing).__name__ for thing in [*cli.trainer.callbacks, *cli.trainer.loggers]}
    assert named <= built
    assert cli.trainer.global_step == 1
    for logger in cli.trainer.loggers:
        logger.finalize("success")
    if "Wandb" in snippet:
        import wandb

        wandb.finish()
        assert list((tmp_path / "runs" / "logged" / "wandb").glob("offline-run-*/files/media/images/media/*.png"))


def test_the_evaluation_page_lists_every_argument() -> None:
    import inspect

    from rlr.callbacks import EMA, Evaluation, HackingAlarm, SampleGrid

    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert list(inspect.signature(Evaluation).parameters) == [row for row in rows if not row.endswith("Logger")]
    for kind in (SampleGrid, HackingAlarm, EMA):
        assert f"`{kind.__name__}({', '.join(inspect.signature(kind).parameters)})`" in page


def _small(config: str, request: pytest.FixtureRequest) -> list[str]:
    """The options that put a random model in the place of the built-in one, and make one update quick."""
    args = yaml.safe_load(config)["model"]["init_args"]
    small = ["--model.init_args.sampler=DDIM", "--model.init_args.sampler.init_args.steps=6"]
    small += ["--data.init_args.batch_size=2", "--trainer.max_steps=1"]
    small += ["--trainer.limit_val_batches=0", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    if "Tiny" in str(args["model"]):
        depth = ".init_args.model" if "Guidance" in str(args["model"]) else ""
        small.append(f"--model.init_args.model{depth}.init_args.path={request.getfixturevalue('random_sd')()}")
    if "Evaluation" in config:
        small.append("--trainer.callbacks.init_args.limit=4")
    if args["reward"] == "TinyPickScore":
        small += ["--model.init_args.reward=PickScore", f"--model.init_args.reward.init_args.path={FOLDER}"]
    return small
