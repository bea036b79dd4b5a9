"""Parts of a model in diffusers' folder layout, local or on the hub: every file whole, every weight in the file."""

import json
import logging
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from rlr.io.hub import weight_files, weights_here
from rlr.io.hub_connection import cache_if_offline, unreachable
from rlr.io.inventory import note, on_meta, taken
from rlr.io.weights import UNREADABLE, blank
from rlr.models.integrity import check_file

COMPILED = "_orig_mod."
"""The prefix of every name in a state dict that was saved from the result of ``torch.compile``."""
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model")
"""The files one of which a tokenizer's folder has."""
LOGGERS = (
    "diffusers.models.modeling_utils",
    "transformers.modeling_utils",
    "transformers.utils.loading_report",
    "transformers.distributed.tensor_parallel",
)
"""Where the libraries list the names of missing and foreign weights."""


@dataclass(frozen=True)
class ModelFolder:
    """A folder in diffusers' layout.

    Args:
        path: The folder, or its name on the hub.
        kind: What the folder is expected to hold, such as ``a Stable Diffusion``, for messages.
        parts: The names of its parts, for messages.
        revision: The revision on the hub.
        variant: The variant of the weight files, such as ``fp16``.
    """

    path: str
    kind: str
    parts: Sequence[str]
    revision: str | None = None
    variant: str | None = None

    def config(self, kind: Any, part: str) -> dict[str, Any]:
        """Returns the configuration of a part; ``kind`` is a class of diffusers, or a configuration of transformers."""
        self._check_files(part)
        options = {"subfolder": part, "revision": self.revision}
        with self._explained(part):
            if Path(self.path).is_dir() and not any((Path(self.path) / part).glob("*config.json")):
                # transformers returns its defaults for a folder without configuration
                raise FileNotFoundError("it holds no configuration")
            if issubclass(kind, PreTrainedConfig):
                settings: dict[str, Any] = kind.from_pretrained(self.path, **options).to_dict()
            else:
                settings = kind.load_config(self.path, **options)
        return settings

    def model_type(self, part: str) -> str:
        """Returns what the configuration of a part of transformers states as its kind, ``model_type``."""
        self._check_files(part)
        with self._explained(part):
            settings, _ = PreTrainedConfig.get_config_dict(self.path, subfolder=part, revision=self.revision)
        return str(settings.get("model_type"))

    def network(self, kind: Any, part: str, **dtype: torch.dtype) -> Any:
        """Returns a network of class ``kind`` with the weights of its file: all of its weights are in the file.

        Args:
            kind: A class of diffusers or transformers.
            part: The name of the part.
            dtype: The type of the weights, as ``dtype=`` or ``torch_dtype=``.

        Raises:
            ValueError: If the files cannot be read, or lack a weight.
        """
        self._check_files(part)
        self._check_kind(kind, part)
        if taken() is not None:
            return self._shapes(kind, part, *dtype.values())
        options: dict[str, Any] = {"subfolder": part, "revision": self.revision, "variant": self.variant, **dtype}
        if issubclass(kind, PreTrainedModel):
            # without it transformers names the weights of another shape in its log only
            options["ignore_mismatched_sizes"] = True
        with self._explained(part), silenced(LOGGERS):
            network, report = kind.from_pretrained(self.path, output_loading_info=True, **options)
        self._check_names(part, kind.__name__, report)
        return network

    def _shapes(self, kind: Any, part: str, dtype: torch.dtype) -> Any:
        """Returns the network that the configuration of a part describes, without content."""
        options = {"subfolder": part, "revision": self.revision}
        with self._explained(part):
            if issubclass(kind, PreTrainedModel):
                config = kind.config_class.from_pretrained(self.path, **options)
                network = blank(lambda: kind(config))
                network.tie_weights()
            else:
                settings = kind.load_config(self.path, **options)
                network = blank(lambda: kind.from_config(settings))
        note(self.path, part, weights_here(self.path, part, self.revision, self.variant))
        return nn.Module.to(on_meta(network), dtype)

    def tokenizer(self, kind: Any, part: str = "tokenizer", **options: Any) -> Any:
        """Returns a tokenizer of class ``kind``.

        Raises:
            ValueError: If the files cannot be read, or state no vocabulary.
        """
        self._check_files(part)
        with self._explained(part):
            # a tokenizer of bytes has a configuration alone
            names = VOCABULARIES if getattr(kind, "vocab_files_names", True) else ("tokenizer_config.json",)
            folder = Path(self.path) / part
            if Path(self.path).is_dir() and not any((folder / name).is_file() for name in names):
                raise FileNotFoundError("it holds no vocabulary")
            tokenizer = _read_tokenizer(kind, self.path, subfolder=part, revision=self.revision, **options)
            # a processor of texts and images holds a tokenizer
            words = getattr(tokenizer, "tokenizer", tokenizer)
            # without files transformers returns a tokenizer that knows its special tokens only
            if len(words) <= len(words.all_special_tokens):
                raise OSError("its vocabulary is empty")
            _check_merges(words)
        return tokenizer

    def pipeline(self) -> str | None:
        """Returns the name of the pipeline's class that ``model_index.json`` states, or None."""
        return self.index().get("_class_name")

    def index(self) -> dict[str, Any]:
        """Returns what ``model_index.json`` states of the pipeline; nothing if there is no readable one."""
        name = "model_index.json"
        try:
            local = Path(self.path).is_dir()
            file = Path(self.path) / name if local else hf_hub_download(self.path, name, revision=self.revision)
            content = json.loads(Path(file).read_text("utf-8"))
        except UNREADABLE:
            return {}
        return content if isinstance(content, dict) else {}

    def fingerprint(self, part: str) -> str:
        """Returns words that tell the weights of a part from any others, without reading them."""
        if Path(self.path).is_dir():
            local = weight_files(Path(self.path) / part, self.variant)
            facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in local]
            return f"{(Path(self.path) / part).resolve()} {facts}"
        # the cached path holds the commit
        cached = try_to_load_from_cache(self.path, f"{part}/config.json", revision=self.revision)
        return f"{self.path} {part} {self.variant} {cached}"

    def files(self, part: str) -> str:
        """Returns the weight files of a part, as messages name them."""
        local = weight_files(Path(self.path) / part, self.variant)
        return ", ".join(map(str, local)) or f"{self.path}/{part}"

    def _check_files(self, part: str) -> None:
        folder = Path(self.path) / part
        if folder.is_dir():
            texts = [file for file in folder.iterdir() if file.suffix in (".json", ".txt", ".model")]
            for file in (*sorted(texts), *weight_files(folder, self.variant)):
                check_file(file)
                if file.name.endswith("config.json") and not isinstance(json.loads(file.read_text("utf-8")), dict):
                    raise ValueError(f"{file} is not a configuration (it holds no JSON object); download it again")

    def _check_kind(self, kind: Any, part: str) -> None:
        file = Path(self.path) / part / "config.json"
        config = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        stated = config.get("_class_name", kind.__name__)
        if stated != kind.__name__:
            raise ValueError(
                f"{file} is a {stated}, and {self.kind} has a {kind.__name__} there; name a folder of {self.kind}"
            )

    def _check_names(self, part: str, kind: str, report: Mapping[str, Iterable[Any]]) -> None:
        missing, foreign = (
            sorted(name for name in report[key] if not name.endswith("position_ids"))
            for key in ("missing_keys", "unexpected_keys")
        )
        if any(name.startswith(COMPILED) for name in foreign):
            raise ValueError(
                f"the names in {self.files(part)} begin with {COMPILED!r}, as torch.compile writes them; save the state "
                "dict of the network that was compiled (its `_orig_mod`)"
            )
        misshapen = sorted(name for name, *_ in report["mismatched_keys"])
        if misshapen:
            raise ValueError(
                f"{self.files(part)} does not fit {part}/config.json: {len(misshapen)} weights of the {kind} have another "
                f"shape, the first is {misshapen[0]!r}; take both files from one model"
            )
        if missing:
            beside = f"; it holds {len(foreign)} others, such as {foreign[0]!r}" if foreign else ""
            raise ValueError(
                f"{self.files(part)} lacks weights of the {kind}: {missing[0]!r} ({len(missing)} in all){beside}; "
                "download the file again, or export the whole network"
            )
        if foreign:
            warnings.warn(
                f"{self.files(part)} holds {len(foreign)} weights that the {kind} does not have and that are not read, "
                f"such as {foreign[0]!r}; check that the file belongs to this model",
                stacklevel=4,
            )

    @contextmanager
    def _explained(self, part: str) -> Iterator[None]:
        """Turns what the libraries raise for unreadable files and without network into one sentence."""
        try:
            with cache_if_offline(self.path):
                yield
        except UNREADABLE as error:
            note(self.path, part, here=False)
            raise ValueError(self._sentence(part, error)) from error

    def _sentence(self, part: str, error: Exception) -> str:
        lines = str(error).strip().split("\n")
        if isinstance(error, pickle.UnpicklingError):
            # torch's own message advises to run the code
            cause = "its file holds Python objects besides tensors, which are not read, because they can run code"
        elif isinstance(error, OSError):
            cause = lines[0].rstrip(".")
        else:
            cause = f"{type(error).__name__}: {lines[0]}".rstrip(".:")
        layout = ", ".join(f"{name}/" for name in self.parts[:-1]) + f" and {self.parts[-1]}/"
        if Path(self.path).is_dir():
            pipeline = self.pipeline()
            other = f" of a {pipeline}" if pipeline else ""
            return (
                f"the folder {self.path!r}{other} has no readable {part}/ ({cause}); set path to {self.kind} in diffusers' "
                f"layout, with {layout}"
            )
        if not isinstance(error, OSError):
            return f"{part}/ of {self.path!r} cannot be read ({cause}); delete it from the model cache, and download it again"
        cause = unreachable() or cause
        return (
            f"{self.path!r} is neither a folder nor in this machine's model cache, and could not be downloaded ({cause}); "
            f"without a network connection, set path to a folder that contains {layout}, such as one that `hf download` wrote"
        )


def _read_tokenizer(kind: Any, path: str, **options: Any) -> Any:
    try:
        # without it transformers asks at the terminal whether to run the code of the folder
        return kind.from_pretrained(path, trust_remote_code=False, **options)
    except UNREADABLE:
        raise
    except Exception as error:
        # the tokenizers library raises the class Exception itself for a tokenizer.json that it cannot read
        raise ValueError(str(error)) from error


def _check_merges(tokenizer: Any) -> None:
    """Raises OSError if a byte-pair tokenizer has tokens that no merge makes, as without or with half of ``merges.txt``."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    model = json.loads(backend.to_str())["model"] if backend else {}
    if model.get("type") != "BPE":
        return
    pairs = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    made = {"".join(pair) for pair in pairs} | set(tokenizer.all_special_tokens)
    suffix = model.get("end_of_word_suffix") or ""
    lost = [token for token in model["vocab"] if len(token.removesuffix(suffix)) > 1 and token not in made]
    if lost:
        raise OSError(f"its merges lack {len(lost)} of {len(model['vocab'])} tokens, such as {lost[0]!r}")


@contextmanager
def silenced(names: Sequence[str]) -> Iterator[None]:
    """Silences loggers of the libraries, where this package raises or warns itself."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
