"""Texts in messages."""


def quote(text: str, width: int = 80) -> str:
    """Returns ``text`` in quotes, of at most ``width`` characters: the end of a longer text is replaced by an ellipsis."""
    return repr(str(text) if len(text) <= width else text[: width - 1] + "…")
