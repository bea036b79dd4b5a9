r"""Shifted weights :math:`\theta + s \, \varepsilon` with :math:`\varepsilon \sim \mathcal{N}(0, I)`.

:math:`\varepsilon` is never stored. Its seed is stored, and :math:`\varepsilon` is drawn again where it is needed (MeZO).

References:
    | Fine-Tuning Language Models with Just Forward Passes (Malladi et al., 2023)
    | https://arxiv.org/abs/2305.17333
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from rlr.distributed import is_split, mean, rank, split_like
from rlr.microbatch import rows
from rlr.models.base import DiffusionModel
from rlr.models.uncompiled import uncompiled
from rlr.seeding import Stream, spawn


def normal(shape: tuple[int, ...], like: Tensor, seed: int) -> Tensor:
    """Draws standard normals of a shape, on the device and in the type of ``like``, from a seed."""
    generator = torch.Generator(like.device).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=like.dtype, device=like.device)


class Perturbation(ABC):
    r"""A way to shift the trainable weights of a model."""

    shared: bool = False
    """Whether all samples of a batch have the same direction."""

    def check(self, model: DiffusionModel) -> None:  # noqa: B027 - a hook
        """Raises a ``ValueError`` that names the remedy if the perturbation cannot shift the model's trainable weights."""

    @abstractmethod
    @contextmanager
    def shifted(self, model: DiffusionModel, scale: float, seed: int, batch: int) -> Iterator[None]:
        r"""A context with the weights :math:`\theta + s \, \varepsilon`; afterwards they are :math:`\theta`, to the bit.

        Args:
            model: The model.
            scale: The size :math:`s`, of either sign.
            seed: The seed of :math:`\varepsilon`.
            batch: The number :math:`B` of samples.
        """

    @abstractmethod
    def combine(self, model: DiffusionModel, coefficients: Tensor, seed: int) -> dict[str, Tensor]:
        r"""Returns :math:`\frac{1}{B} \sum_i c_i \varepsilon_i` for coefficients :math:`c`, with shape :math:`(B)`, by weight.

        For a weight that is split over the processes it is this one's part of the mean over all of them.
        """


class SharedDirection(Perturbation):
    r"""One :math:`\varepsilon` for the whole batch, added to the weights in place. It works with any weights."""

    shared = True

    @contextmanager
    def shifted(self, model: DiffusionModel, scale: float, seed: int, batch: int) -> Iterator[None]:
        weights = list(model.trainable.values())
        # θ + sε − sε is not θ in floating point: keep θ itself
        saved = [w.detach().clone() for w in weights]
        try:
            for k, w in enumerate(weights):
                w.data.add_(split_like(normal(w.shape, w, spawn(seed, Stream.WEIGHT, k)), w), alpha=scale)
            yield
        finally:
            for w, s in zip(weights, saved, strict=True):
                w.data.copy_(s)

    def combine(self, model: DiffusionModel, coefficients: Tensor, seed: int) -> dict[str, Tensor]:
        c = coefficients.mean()
        return {
            name: split_like(_mean_if_split(c.to(w.dtype), w) * normal(w.shape, w, spawn(seed, Stream.WEIGHT, k)), w)
            for k, (name, w) in enumerate(model.trainable.items())
        }


class DirectionPerSample(Perturbation):
    r"""One :math:`\varepsilon_i` for each sample, in one batched forward pass.

    For a linear layer with input :math:`x_i`, :math:`(W + s \, \varepsilon_i) x_i = W x_i + s \, \varepsilon_i x_i`: the
    weights of the layer do not change, and a batched product is added to its output. All trainable weights must belong to linear
    layers, as in a LoRA. :math:`B` directions cost as much as one, and have :math:`B` times less variance.
    """

    def check(self, model: DiffusionModel) -> None:
        if not self.serves(model):
            raise ValueError(
                "DirectionPerSample shifts linear layers only, and the model trains other weights too; "
                "train LoRA weights or use SharedDirection"
            )

    @staticmethod
    def serves(model: DiffusionModel) -> bool:
        """Returns whether all trainable weights belong to linear layers."""
        return all(isinstance(owner, nn.Linear) for owner, _ in _owners(model).values())

    @contextmanager
    def shifted(self, model: DiffusionModel, scale: float, seed: int, batch: int) -> Iterator[None]:
        layers: dict[nn.Module, dict[str, int]] = {}
        for k, (owner, name) in enumerate(_owners(model).values()):
            layers.setdefault(owner, {})[name] = k
        with ExitStack() as stack:
            stack.enter_context(uncompiled(model))
            for layer, names in layers.items():
                handle = layer.register_forward_hook(_hook(names, scale, seed, batch))
                stack.callback(handle.remove)
            yield

    def combine(self, model: DiffusionModel, coefficients: Tensor, seed: int) -> dict[str, Tensor]:
        return {
            name: split_like(_mean_if_split(_combined(w, coefficients.to(w.dtype), seed, k), w), w)
            for k, (name, w) in enumerate(model.trainable.items())
        }


def _mean_if_split(value: Tensor, weight: Tensor) -> Tensor:
    """Returns the mean over all ranks for a weight that is split, whose gradient nothing else averages."""
    return mean(value) if is_split(weight) else value


def _owners(model: DiffusionModel) -> dict[str, tuple[nn.Module, str]]:
    """Returns, for each trainable weight in order, the module that holds it and its name there."""
    parts = {name: name.rpartition(".") for name in model.trainable}
    return {name: (model.get_submodule(path), leaf) for name, (path, _, leaf) in parts.items()}


def _directions(weight: Tensor, seed: int, k: int, batch: int) -> Tensor:
    r"""Draws :math:`\varepsilon_i` of weight number ``k`` for this rank's samples, with shape :math:`(B, *)`."""
    first = rank() * batch
    return normal((first + batch, *weight.shape), weight, spawn(seed, Stream.WEIGHT, k))[first:]


def _combined(weight: Tensor, c: Tensor, seed: int, k: int) -> Tensor:
    r"""Returns :math:`\frac{1}{B} \sum_i c_i \varepsilon_i` of weight number ``k``, over this rank's samples."""
    return torch.einsum("b,b...->...", c, _directions(weight, seed, k, len(c))) / len(c)


def _hook(names: dict[str, int], scale: float, seed: int, batch: int) -> Callable[..., Tensor]:
    """Returns a forward hook that adds the shift of each sample to a linear layer's output."""

    def shift(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        assert isinstance(layer, nn.Linear)
        (x,) = inputs
        here = rows(batch)
        # guidance passes the batch twice, one copy after the other: sample i has the rows i, i + B
        states = x.reshape(-1, here.stop - here.start, x[0].numel() // x.shape[-1], x.shape[-1])
        added = torch.zeros((), dtype=output.dtype, device=output.device)
        if "weight" in names:
            epsilon = _directions(layer.weight, seed, names["weight"], batch)[here]
            added = added + torch.einsum("nbli,boi->nblo", states.to(epsilon.dtype), epsilon)
        if "bias" in names:
            added = added + _directions(layer.bias, seed, names["bias"], batch)[here].unsqueeze(1)
            added = added.expand(*states.shape[:-1], -1)
        return output + scale * added.reshape(output.shape).to(output.dtype)

    return shift
