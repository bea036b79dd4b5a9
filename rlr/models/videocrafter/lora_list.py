r"""The LoRA of T2V-Turbo's file: a list of matrices without names, in the order in which its authors' program walks.

The walk visits every linear layer and every convolution over two or three axes of VideoCrafter's denoiser in the order in which
they are defined. The list holds for each the factors :math:`B` and :math:`A`, and the layer's weight becomes

.. math:: W' = W + B A

with the axes of a convolution's kernel flattened: :math:`A` has the shape :math:`(r, C_\mathrm{in}, *k)`, :math:`B` the shape
:math:`(C_\mathrm{out}, r, 1, \dots)`. The rank :math:`r` is at most the number of channels on either side.

References:
    | inject_trainable_lora_extended, save_lora_weight and collapse_lora in utils/lora.py of
    | https://github.com/Ji4chenLi/t2v-turbo
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from rlr.io.weights import read_archive
from rlr.models.videocrafter.keys import in_order

AXES = (2, 4, 5)
"""The axes of the weights of a linear layer and of convolutions over two and three axes; those over one are not visited."""


def layers(network: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of the weights that the walk visits, in its order.

    Args:
        network: The denoiser's weights, under its authors' names without their prefix.
    """
    return in_order(name for name, w in network.items() if name.endswith(".weight") and w.ndim in AXES)


def read_factors(path: Path) -> list[Tensor]:
    """Returns the matrices of a file.

    Raises:
        ValueError: If the file is no list of tensors.
    """
    content = read_archive(path, mmap=True)
    if not isinstance(content, list) or not all(isinstance(factor, Tensor) for factor in content):
        raise ValueError(
            f"{path}: expected a list of tensors, found {_describe(content)}; set the unet_lora.pt that T2V-Turbo's authors "
            "published"
        )
    return content


def add_lora(
    state: Mapping[str, Tensor],
    network: Mapping[str, Tensor],
    factors: Sequence[Tensor],
    path: Path,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    r"""Returns the weights of a file, :math:`W + B A` where the walk visits and the others as they are.

    Weights of another shape than the denoiser's stay as they are, too, so that a comparison finds them.

    Args:
        state: The weights of the file, under their authors' names without their prefix.
        network: Those of the denoiser, of which only names and shapes are read.
        factors: The list, :math:`B` and :math:`A` of each layer.
        path: The file of the list, for messages.
        dtype: The type of the sums, which are computed in float32.

    Raises:
        ValueError: If the list has another number of tensors, or one of another shape.
    """
    names = layers(network)
    if len(factors) != 2 * len(names):
        raise ValueError(
            f"{path}: expected {2 * len(names)} tensors, two for each of the denoiser's {len(names)} layers, found "
            f"{len(factors)}; set the LoRA of this very model"
        )
    sums = {}
    for name, up, down in zip(names, factors[::2], factors[1::2], strict=True):
        addition = _product(name, network[name].shape, up, down, path)
        if name in state and state[name].shape == addition.shape:
            sums[name] = (state[name].float() + addition).to(dtype)
    return {**state, **sums}


def _product(name: str, shape: Sequence[int], up: Tensor, down: Tensor, path: Path) -> Tensor:
    out, inside, *kernel = shape
    rank = down.shape[0] if down.ndim else 0
    if up.shape != (out, rank, *[1] * len(kernel)) or down.shape != (rank, inside, *kernel) or not rank:
        raise ValueError(
            f"{path}: expected factors of shape ({out}, r{', 1' * len(kernel)}) and (r, {str((inside, *kernel)).strip('(,)')}) "
            f"for {name}, found {tuple(up.shape)} and {tuple(down.shape)}; set the LoRA of this very model"
        )
    return (up.detach().float().flatten(1) @ down.detach().float().flatten(1)).view(*shape)


def _describe(content: object) -> str:
    if not isinstance(content, list):
        return f"a {type(content).__name__}"
    return f"a list with a {next(type(c).__name__ for c in content if not isinstance(c, Tensor))}"
