"""Uploading an export to the Hugging Face hub."""

import re
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""A name on the hub, such as ``me/my-lora``."""


def check_name(name: str) -> None:
    """Raises ValueError if a text is no name of a repository on the hub."""
    if not NAME.fullmatch(name):
        raise ValueError(f"push: expected the name of a repository on the hub, such as me/my-lora, got {name!r}")


def push(folder: Path, name: str, private: bool = True) -> str:
    """Uploads a folder as a model repository, which is made if it does not exist.

    The token is that of ``hf auth login``, or of the environment variable ``HF_TOKEN``.

    Args:
        folder: The folder.
        name: The name of the repository, ``USER/NAME``.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        ValueError: If it is not a name of a repository.
        OSError: If the hub refuses.
    """
    check_name(name)
    api = HfApi()
    try:
        address = api.create_repo(name, private=private, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=folder, commit_message="Upload the aligned weights")
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no"
        raise OSError(
            f"push: the hub answered {status} for {name}; log in with `hf auth login` as its owner. The export is in {folder}"
        ) from error
    return str(address)
