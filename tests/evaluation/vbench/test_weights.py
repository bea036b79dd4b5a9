"""What is loaded, where it goes, and whether it is what was published."""

import hashlib
from pathlib import Path

import pytest

from rlr.cli.vbench.__main__ import main
from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX, TEMPORAL_FLICKERING, Dimension, File, named
from rlr.evaluation.vbench.weights import cache, check, digests, report, sound
from rlr.io.hub import checksum

CONTENT = b"weights"
SHA = hashlib.sha256(CONTENT).hexdigest()
ONE = Dimension(
    "one", "One", files=(File("a/one.pth", "https://example.org/one", SHA), File("code.py", "https://x.org"))
)
TWO = Dimension("two", "Two", files=(File("two.pth", "https://example.org/two", SHA[:8]),))


def fill(folder: Path, content: bytes = CONTENT) -> Path:
    for dimension in (ONE, TWO):
        for file in dimension.files:
            (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
            (folder / file.path).write_bytes(content)
    return folder


def test_all_there(tmp_path):
    fill(tmp_path)
    check([ONE, TWO], tmp_path)
    assert digests([ONE, TWO], tmp_path) == {"a/one.pth": SHA, "code.py": SHA, "two.pth": SHA}
    assert sound([ONE, TWO], tmp_path)


def test_a_missing_file_is_stated_with_its_dimension(tmp_path):
    stated = (
        r"^one needs the weights .*a/one.pth, which are not there \(2 other files are missing, too\); `make vbench-"
    )
    with pytest.raises(FileNotFoundError, match=stated):
        check([ONE, TWO], tmp_path)
    (fill(tmp_path) / "two.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"^two needs the weights .*two.pth, which are not there; `make"):
        check([ONE, TWO], tmp_path)
    check([ONE], tmp_path)


def test_another_file_than_was_published(tmp_path):
    fill(tmp_path, b"cut short")
    stated = rf"the weights .*one.pth of one are not those that were published .* begin with {SHA[:8]}\); download them"
    with pytest.raises(ValueError, match=stated):
        check([ONE], tmp_path)
    with pytest.raises(ValueError, match="of two are not"):
        check([TWO], tmp_path)
    assert not sound([ONE], tmp_path)


def test_the_list_says_what_is_known_and_what_is_not(tmp_path):
    text = report([ONE, TWO, TEMPORAL_FLICKERING], tmp_path)
    assert f"MISSING; the published SHA-256 is {SHA}\n" in text
    assert f"MISSING; the published SHA-256 is {SHA[:8]}…\n" in text
    assert text.count("MISSING; no published SHA-256 is known") == 1
    assert text.endswith("temporal_flickering: needs none")
    text = report([ONE, TWO], fill(tmp_path))
    assert text.count(f"there: 7 bytes, SHA-256 {SHA}; as published") == 2
    assert text.count(f"there: 7 bytes, SHA-256 {SHA}; no published SHA-256 is known") == 1
    assert "WRONG" in report([ONE], fill(tmp_path, b"another"))


def test_published_checksums_are_those_in_the_names():
    known = [file for dimension in SIX for file in dimension.files if file.sha256]
    assert {Path(file.path).name for file in known} == {"ViT-B-32.pt", "ViT-L-14.pt", "musiq_spaq_ckpt-358bb6af.pth"}
    assert all(file.sha256 in file.source for file in known)
    assert all(dimension.files for dimension in SIX)


def test_the_folder_is_that_of_vbench(monkeypatch, tmp_path):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path))
    assert cache() == tmp_path
    assert cache("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("VBENCH_CACHE_DIR")
    assert cache() == Path.home() / ".cache" / "vbench"


def test_the_command_lists_every_file(tmp_path, capsys):
    assert main(["weights", "--weights", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for dimension in DIMENSIONS.values():
        assert f"\n{dimension.name}" in printed
        assert all(file.path in printed and file.source in printed for file in dimension.files)
    (file,) = named(["imaging_quality"])[0].files
    (tmp_path / file.path).parent.mkdir()
    (tmp_path / file.path).write_bytes(CONTENT)
    assert main(["weights", "--weights", str(tmp_path)]) == 1
    assert checksum(tmp_path / file.path) in capsys.readouterr().out
