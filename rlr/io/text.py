"""Texts in messages."""


def quote(text: str, width: int = 80) -> str:
    """Returns ``text`` in quotes, of at most ``width`` characters: the end of a longer text is replaced by an ellipsis."""
    return repr(str(text) if len(text) <= width else text[: width - 1] + "…")


def escaped(text: str) -> str:
    """Returns a text on one line as Markdown shows it in a cell of a table: as it is, and without links, images or HTML."""
    line = " ".join(text.split()).replace("\\", "\\\\")
    for sign in "|`[]":
        line = line.replace(sign, f"\\{sign}")
    return line.replace("&", "&amp;").replace("<", "&lt;")


def check_text(text: str, place: str) -> str:
    """Returns ``text``, which tokenizers can read.

    Raises:
        ValueError: If it contains half of a surrogate pair, which no UTF-8 text can; ``place`` says where.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place} has the lone surrogate U+{ord(text[error.start]):04X} at character {error.start + 1} of its text; "
            "write the whole character, or delete the half"
        ) from error
    return text
