"""The folders of the built-in models in the package."""

from importlib import resources


def packaged(name: str, kind: str, remedy: str) -> str:
    """Returns a folder of the package.

    Args:
        name: The name of the folder.
        kind: The built-in model, for the message.
        remedy: What to set instead, for the message.

    Raises:
        ValueError: If the installation lacks the folder.
    """
    folder = resources.files("rlr.toy") / "assets" / name
    if not folder.is_dir():
        raise ValueError(
            f"the built-in {kind} is missing from this installation ({folder}); install the package again, or {remedy}"
        )
    return str(folder)
