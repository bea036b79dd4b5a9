import pytest

from rlr.io.text import quote


@pytest.mark.parametrize(
    ("text", "quoted"),
    [("a cat", "'a cat'"), ("x" * 80, f"'{'x' * 80}'"), ("x" * 81, f"'{'x' * 79}…'"), ("a\nb", "'a\\nb'"), ("", "''")],
)
def test_a_quoted_text_has_at_most_80_characters(text, quoted):
    assert quote(text) == quoted
