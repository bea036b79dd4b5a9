r"""Which weights of a network are trained: low-rank additions (LoRA), the network's own, or none.

A :class:`Trainable` is handed to a base model, which asks it to prepare the frozen network.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

ADAPTER = "default"
START = "start"
"""The name of the buffers that hold the LoRA with which training started."""
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
"""The four projections of every attention of a U-Net."""


class Trainable(ABC):
    """A choice of the weights to be aligned."""

    @abstractmethod
    def attach(self, network: nn.Module, targets: Sequence[str] = ATTENTION) -> None:
        """Prepares a network, none of whose weights has ``requires_grad``, so that the chosen ones have it.

        Args:
            network: The network.
            targets: The layers that its family adapts by default, by the ends of their names.
        """

    @abstractmethod
    def reference(self, network: nn.Module) -> AbstractContextManager[None]:
        """Returns a context within which the network computes with the weights before training.

        Raises:
            ValueError: If there is no copy of them.
        """

    def for_each(self, count: int) -> Sequence["Trainable"]:
        """Returns the choice for each of the ``count`` networks of a model; by default the same for all.

        Raises:
            ValueError: If it is one for another number of networks.
        """
        return [self] * count


class LoRA(Trainable):
    r"""Low-rank additions :math:`W + \frac{\alpha}{r} B A` to linear layers, with :math:`B = 0` before training.

    The additions are float32 (or float64 beside float64 weights) even if the network is half: an update is smaller
    than the spacing of half-precision numbers.

    References:
        | LoRA: Low-Rank Adaptation of Large Language Models (Hu et al., 2021)
        | https://arxiv.org/abs/2106.09685

    Args:
        rank: The rank :math:`r \geq 1`.
        alpha: The scale :math:`\alpha`; by default :math:`r`, so that the factor is 1.
        targets: The ends of the layers' names; by default what the base model's family adapts, in a U-Net the four
            projections of every attention.
        pattern: A regular expression that is searched in the layers' names, such as ``attn2`` for the attentions to the
            prompt; by default all layers that end so.
        seed: Decides :math:`A \sim \mathcal{N}(0, r^{-2} I)`; no other generator is touched.
        start: A ``.safetensors`` file with a LoRA under the names of diffusers or of kohya's scripts, with which training
            starts, or a list of files, one for each transformer of a model of several, as of Wan 2.2 A14B; rank, scale and layers
            are then the file's. The weights before training include it.
    """

    def __init__(
        self,
        rank: int = 4,
        alpha: float | None = None,
        targets: Sequence[str] | None = None,
        seed: int = 0,
        pattern: str | None = None,
        start: str | Sequence[str] | None = None,
    ) -> None:
        if start and (targets is not None or pattern is not None):
            raise ValueError("LoRA: start decides which layers are trained; leave out targets and pattern")
        if rank < 1:
            raise ValueError(f"LoRA needs a rank of at least 1, and got rank={rank}")
        if targets is not None and not targets:
            raise ValueError("LoRA: targets is empty; leave it out for the layers that the model's family adapts")
        self.rank = rank
        self.alpha = rank if alpha is None else alpha
        self.targets = None if targets is None else tuple(targets)
        self.seed = seed
        self.pattern = pattern
        self.start = [start] if isinstance(start, str) else [*(start or ())]

    def for_each(self, count: int) -> Sequence[Trainable]:
        if not self.start:
            return [self] * count
        if len(self.start) != count:
            raise ValueError(
                f"LoRA.start: expected {count} files, one for each transformer of the model, got {', '.join(self.start)}"
            )
        return [LoRA(start=file) for file in self.start]

    def attach(self, network: nn.Module, targets: Sequence[str] = ATTENTION) -> None:
        if self.start:
            (file,) = self.start
            self._read(network, file)
            return
        targets = self.targets or targets
        self._check(network, targets)
        dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
        config = LoraConfig(
            r=self.rank,
            lora_alpha=cast(int, self.alpha),
            target_modules=self._modules(targets),
            init_lora_weights="gaussian",
        )
        with torch.random.fork_rng(devices=[]):
            # not torch.manual_seed, which seeds the accelerators' generators too
            torch.default_generator.manual_seed(self.seed)
            inject_adapter_in_model(config, network, ADAPTER)
        for weight in _layer_weights(network):
            weight.data = weight.data.to(dtype)

    def reference(self, network: nn.Module) -> AbstractContextManager[None]:
        return _started(network) if self.start else self._switched_off(network)

    def _read(self, network: nn.Module, start: str) -> None:
        # diffusers' readers of files are not needed without a file
        from rlr.models.lora_file import load_lora

        dtype = torch.promote_types(next(network.parameters()).dtype, torch.float32)
        load_lora(network, start, ADAPTER)
        for layer in _matrices(network):
            layer.weight.data = layer.weight.data.to(dtype)
            layer.weight.requires_grad_(True)
            # moves with the network, and is no part of its state dict
            layer.register_buffer(START, layer.weight.detach().clone(), persistent=False)

    @contextmanager
    def _switched_off(self, network: nn.Module) -> Iterator[None]:
        layers = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]
        # peft switches requires_grad too, off and then on for all
        flags = [(weight, weight.requires_grad) for weight in _layer_weights(network)]
        try:
            for layer in layers:
                layer.enable_adapters(False)
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
            for weight, flag in flags:
                weight.requires_grad_(flag)

    def _modules(self, targets: Sequence[str]) -> list[str] | str:
        """Returns peft's argument: ends of names, or an expression that a whole name matches."""
        if self.pattern is None:
            return list(targets)
        ends = "|".join(map(re.escape, targets))
        return rf"(?=.*(?:{self.pattern}))(?:.*\.)?(?:{ends})"

    def _check(self, network: nn.Module, targets: Sequence[str]) -> None:
        linear = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
        chosen = [name for name in linear if re.search(self.pattern or "", name)]
        if not chosen:
            raise ValueError(
                f"LoRA's pattern {self.pattern!r} is found in no linear layer's name of {type(network).__name__}; names "
                f"look like {linear[-1]!r}"
            )
        for target in targets:
            if not any(name == target or name.endswith(f".{target}") for name in chosen):
                raise ValueError(
                    f"LoRA's target {target!r} is the end of no linear layer's name in {type(network).__name__}; "
                    f"names look like {chosen[-1]!r}"
                )


class FullWeights(Trainable):
    """The network's own weights, all or some.

    Args:
        pattern: A regular expression that is searched in the weights' names, such as ``attn2`` for the attentions to
            the prompt; by default all weights are trained.
    """

    def __init__(self, pattern: str | None = None) -> None:
        self.pattern = re.compile(pattern or "")

    def attach(self, network: nn.Module, targets: Sequence[str] = ATTENTION) -> None:
        chosen = [weight for name, weight in network.named_parameters() if self.pattern.search(name)]
        if not chosen:
            raise ValueError(
                f"FullWeights' pattern {self.pattern.pattern!r} is found in no weight's name of "
                f"{type(network).__name__}; names look like {next(network.named_parameters())[0]!r}"
            )
        if any(weight.dtype.itemsize < 4 for weight in chosen):
            raise ValueError(
                f"updates of full weights get lost in {chosen[0].dtype}; load the model with dtype: float32 and let "
                "the trainer's precision (bf16-mixed, 16-mixed) save the memory, or train a LoRA"
            )
        for weight in chosen:
            weight.requires_grad_(True)

    def reference(self, network: nn.Module) -> AbstractContextManager[None]:
        raise ValueError(
            "FullWeights keeps no copy of the weights before training; load the base model a second time, or train a LoRA"
        )


class Frozen(Trainable):
    """No weight at all: the base model as it is, to sample from or to compare with."""

    def attach(self, network: nn.Module, targets: Sequence[str] = ATTENTION) -> None:
        pass

    def reference(self, network: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()


def frozen_state(network: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of a network without LoRA's additions, under the names of the network without them."""
    return {name.replace(".base_layer.", "."): w for name, w in network.state_dict().items() if ".lora_" not in name}


@dataclass(frozen=True)
class Addition:
    r"""The addition :math:`\frac{\alpha}{r} B A` to one layer.

    Args:
        name: The name of the layer.
        down: :math:`A`, with shape :math:`(r, n)`.
        up: :math:`B`, with shape :math:`(m, r)`.
        alpha: :math:`\alpha`.
    """

    name: str
    down: Tensor
    up: Tensor
    alpha: float

    @property
    def scaled_up(self) -> Tensor:
        r""":math:`\frac{\alpha}{r} B`, for formats that state no :math:`\alpha`."""
        return self.up * (self.alpha / len(self.down))


def additions(network: nn.Module) -> list[Addition]:
    """Returns the additions of a LoRA to a network, on the CPU and without a graph."""
    found = []
    for name, layer in network.named_modules():
        if isinstance(layer, BaseTunerLayer):
            tuned = cast(Any, layer)
            down, up = (w[ADAPTER].weight.detach().cpu().contiguous() for w in (tuned.lora_A, tuned.lora_B))
            found.append(Addition(name, down, up, tuned.scaling[ADAPTER] * len(down)))
    return found


@torch.no_grad()
def merged(network: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of a network with LoRA's additions added, under the names of the network without them."""
    state = frozen_state(network)
    for name, layer in network.named_modules():
        if isinstance(layer, BaseTunerLayer):
            tuned = cast(Any, layer)
            state[f"{name}.weight"] = tuned.get_base_layer().weight + tuned.get_delta_weight(ADAPTER)
    return state


def _matrices(network: nn.Module) -> list[Any]:
    """Returns the linear maps A and B of all LoRA layers of a network."""
    return [cast(Any, module) for name, module in network.named_modules() if re.search(r"\.lora_[AB]\.\w+$", name)]


@contextmanager
def _started(network: nn.Module) -> Iterator[None]:
    """Within, the LoRA is the one that training started with."""
    layers = _matrices(network)
    trained = [layer.weight.data for layer in layers]
    try:
        # the tensors are swapped and not their content, which a graph may hold
        for layer in layers:
            layer.weight.data = getattr(layer, START)
        yield
    finally:
        for layer, data in zip(layers, trained, strict=True):
            layer.weight.data = data


def _layer_weights(network: nn.Module) -> list[nn.Parameter]:
    """Returns the weights of all LoRA layers of a network."""
    return [weight for name, weight in network.named_parameters() if ".lora_" in name]
