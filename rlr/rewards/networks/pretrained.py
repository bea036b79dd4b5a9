"""Complete models and tokenizers in the layout of transformers, from a folder or the hub, read without running code."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlr.io.hub import weights_here
from rlr.io.hub_connection import cache_if_offline
from rlr.io.inventory import TOKENIZER, note, on_meta, taken
from rlr.io.weights import UNREADABLE, blank, freeze, warn_unread


def pretrained(kind: Any, source: str, unused: tuple[str, ...] = (), **options: Any) -> Any:
    """Returns what ``kind.from_pretrained`` makes of a folder or hub id; a model frozen, in eval mode and complete.

    Weights in the file that the model does not have are left out with a warning that names them.

    Args:
        kind: The class.
        source: The folder or hub id.
        unused: How the names of weights begin that the file may have besides, without a warning; the numbers of the
            positions, which older versions of transformers wrote down, are always among them.
        options: Further arguments of ``from_pretrained``.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If the file lacks weights of the model, has them in other shapes, or holds more than tensors.
    """
    model = issubclass(kind, PreTrainedModel)
    if model and taken() is not None:
        return _shapes(kind, source)
    if model:
        options |= {"dtype": torch.float32, "weights_only": True, "output_loading_info": True}
        # so that the weights of other shapes are listed, and refused below by name
        options |= {"ignore_mismatched_sizes": True}
    try:
        with cache_if_offline(source):
            # asked at the terminal, a user might let the code of the folder run
            loaded = kind.from_pretrained(source, trust_remote_code=False, **options)
    except OSError as error:
        note(source, "", here=False)
        raise FileNotFoundError(
            f"no {kind.__name__} can be loaded from {source!r}; set a local folder that holds one in the layout of "
            "transformers, or a hub id while there is a network"
        ) from error
    except UNREADABLE as error:
        raise ValueError(
            f"the {kind.__name__} in {source!r} cannot be read as tensors alone (it is damaged, or holds code); download it "
            "again, or save its state dict anew"
        ) from error
    if model:
        return _complete(loaded[0], loaded[1], source, unused)
    if isinstance(loaded, PreTrainedTokenizerBase):
        _check_vocabulary(loaded, source)
    return loaded


def _check_vocabulary(tokenizer: Any, source: str) -> None:
    """Raises for a tokenizer that knows its special tokens only, which transformers returns where it finds no file."""
    here = len(tokenizer) > len(tokenizer.all_special_tokens)
    note(source, TOKENIZER, here)
    # an inventory goes on, to find all that is missing
    if not here and taken() is None:
        raise FileNotFoundError(
            f"no vocabulary of a {type(tokenizer).__name__} was found in {source!r}; give a local folder that holds one, or a "
            "hub id while there is a network"
        )


def _shapes(kind: Any, source: str) -> nn.Module:
    """Returns the network that a configuration describes, frozen and without content."""
    note(source, "weights", weights_here(source))
    try:
        config = kind.config_class.from_pretrained(source)
    except UNREADABLE as error:
        note(source, "weights", here=False)
        raise FileNotFoundError(
            f"no {kind.__name__} can be loaded from {source!r}; it is not on this machine, or damaged"
        ) from error
    network = blank(lambda: kind(config))
    network.tie_weights()
    return freeze(on_meta(network))


def _complete(
    network: nn.Module, info: Mapping[str, Collection[Any]], source: str, unused: tuple[str, ...]
) -> nn.Module:
    misshapen = [key for key, *_ in info["mismatched_keys"]]
    for fact, keys in (("lacks", info["missing_keys"]), ("has in another shape", misshapen)):
        if keys:
            raise ValueError(
                f"{source} {fact} {len(keys)} weights of {type(network).__name__}, such as {min(keys)}; set the checkpoint "
                "of this very network"
            )
    warn_unread(source, type(network).__name__, [key for key in info["unexpected_keys"] if not key.startswith(unused)])
    return freeze(network)
