"""A config file that cannot be used is refused in one sentence that names the file, the line and what to do."""

import pytest

from rlr.cli.config_inheritance import with_bases
from rlr.io.config_files import ConfigError, expand_home, expand_home_in_option, parse_config, read_config

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
REFUSED = {
    "a key twice": (b"model:\n  lr: 0.1\n  lr: 0.2\n", "line 3: the key 'lr' is set a second time, after line 2"),
    "a section twice": (
        b"trainer: {max_steps: 1}\ndata: x\ntrainer: {max_steps: 2}\n",
        "line 3: the key 'trainer' is set",
    ),
    "a key twice in a flow": (b"a: 1\nb: {c: 1, c: 2}\n", "line 2: the key 'c' is set a second time"),
    "a key twice in quotes": (b"a: 1\n'a': 2\n", "line 2: the key 'a' is set a second time"),
    "a key twice in a list": (b"a:\n- b: 1\n  b: 2\n", "line 3: the key 'b' is set a second time"),
    "a tab": (b"model:\n\tclass_path: X\n", "line 2: expected spaces, found a tab; indent with spaces"),
    "a tab after spaces": (b"model:\n  a: 1\n  \tb: 2\n", "line 3: expected spaces, found a tab"),
    "utf-16": ("model:\n".encode("utf-16"), "line 1: expected text in UTF-8, found UTF-16; save the file as UTF-8"),
    "big-endian utf-16": ("\ufeffmodel:\n".encode("utf-16-be"), "found UTF-16"),
    "latin-1": ("a: 1\nb: \xe9\n".encode("latin-1"), "line 2: expected text in UTF-8, found the byte 0xe9"),
    "empty": (b"", "expected a config, found an empty file; write at least"),
    "comments alone": (b"# later\n", "found an empty file"),
    "a document end alone": (b"---\n...\n", "found an empty file"),
    "a list": (b"- a\n", "expected a mapping with keys such as model and data, found a list"),
    "a scalar": (b"hello\n", "found a str"),
    "binary": (bytes(range(256)), "line 2: expected text in UTF-8, found the byte 0x80"),
    "NUL": (b"a: \x00\n", "line 1: expected text, found the control character '\\x00'"),
    "escape": (b"a: 1\nb: \x1b[0m\n", "line 2: expected text, found the control character '\\x1b'"),
    "an open list": (b"a: [1, 2\nb: 3\n", "expected YAML: did not find expected ',' or ']' at line 2, column 2"),
    "a tag": (
        b"a: !!python/object/apply:os.system [ls]\n",
        "expected YAML: could not determine a constructor for the tag",
    ),
    "two documents": (b"a: 1\n---\nb: 2\n", "found another document at line 2"),
    "a list as key": (b"? [a, b]\n: 1\n", "found unhashable key at line 1"),
    "an unknown alias": (b"a: *b\n", "found undefined alias at line 1"),
    "an alias in itself": (b"a: &a [*a]\n", "line 1: the alias *a stands inside its own anchor"),
    "a merge with itself": (b"a: &a {<<: *a}\n", "the alias *a stands inside its own anchor"),
    "deep lists": (b"a: " + b"[" * 3000 + b"]" * 3000, "line 1: expected a config, found more than 100 levels"),
    "deep mappings": (b"a: " + b"{b: " * 300 + b"1" + b"}" * 300, "found more than 100 levels"),
    "an alias bomb": (BOMB.encode(), "found more than 100000 values; remove aliases or nesting"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_file_is_refused_with_place_and_remedy(case, tmp_path):
    content, expected = REFUSED[case]
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no config .*none.yaml; check the path \(it is relative to"):
        read_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="expected a config file, found a folder; name a file in it"):
        read_config(tmp_path)


def test_what_is_good_yaml_is_read(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &x {q: 1}\nb: *x\nc: {<<: *x, q: 2}\nd:\n- {e: 1}\n- {e: 2}\nf: 1e-4\n")
    same = {"q": 1}
    assert read_config(path) == {"a": same, "b": same, "c": {"q": 2}, "d": [{"e": 1}, {"e": 2}], "f": 1e-4}
    # a second list of the same keys is no second key
    assert parse_config("a: {x: 1, y: {x: 2}}", "here") == {"a": {"x": 1, "y": {"x": 2}}}


def test_the_home_folder_is_expanded_wherever_a_text_starts_with_it(monkeypatch):
    monkeypatch.setenv("HOME", "/folder/me")
    given = {"a": "~/x", "b": ["~/y", {"c": "~"}], "d": "a ~/z", "e": "~other/x", "f": 3, "~/k": 1}
    assert expand_home(given) == {
        "a": "/folder/me/x",
        "b": ["/folder/me/y", {"c": "/folder/me"}],
        **{k: given[k] for k in "def"},
        "~/k": 1,
    }
    assert parse_config("a: ~/x\nb: ~\n", "here") == {"a": "/folder/me/x", "b": None}
    for given, expected in {
        "--trainer.default_root_dir=~/x": "--trainer.default_root_dir=/folder/me/x",
        "~/x": "/folder/me/x",
        "--data.train=[~/x]": "--data.train=[~/x]",  # as YAML, when it is parsed
        "--a=b~/x": "--a=b~/x",
    }.items():
        assert expand_home_in_option(given) == expected


@pytest.mark.parametrize("names", [["a"], ["a", "b"], ["a", "b", "c"]])
def test_a_config_among_its_own_bases_is_refused(names, tmp_path):
    for name, base in zip(names, [*names[1:], names[0]], strict=True):
        (tmp_path / f"{name}.yaml").write_text(f"inner: {{base: {base}.yaml}}\n")
    with pytest.raises(ConfigError, match=r"a config cannot be its own base: .*(\w)\.yaml -> .*\1\.yaml; remove one"):
        with_bases(read_config(tmp_path / "a.yaml"), tmp_path)


def test_one_base_may_serve_twice(tmp_path):
    (tmp_path / "part.yaml").write_text("x: 1\n")
    (tmp_path / "both.yaml").write_text("a: {base: part.yaml}\nb: {base: part.yaml, y: 2}\n")
    assert with_bases(read_config(tmp_path / "both.yaml"), tmp_path) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}}
