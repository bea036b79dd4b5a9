r"""Weights that are split over the processes, for networks that do not fit on one device.

Each of :math:`W` processes keeps :math:`1 / W` of the denoising networks. The weights of a block are gathered for its forward and
for its backward pass, and freed afterwards (``torch.distributed.fsdp.fully_shard``). Text encoder and autoencoder stay whole.

Lightning's own strategies do not serve: ``FSDPStrategy`` refuses a CPU and wraps the whole module, whose forward pass a replay
never calls; ``ModelParallelStrategy`` gathers the state of all weights, frozen ones included, for each checkpoint.

A gathering waits for all processes, so all make the same passes of the network, idle ones included; see :mod:`rlr.lockstep`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils._pytree import tree_map

from rlr import distributed, lockstep
from rlr.models.base import DiffusionModel


class Sharded(DDPStrategy):
    r"""Splits the denoising networks over all processes; ``--trainer.strategy sharded``.

    Weights of a LoRA stay whole on each process and are averaged as without this strategy.

    Args:
        trained: Whether to split trained weights of the networks, too, with their gradients and the state of their optimizer, for
            training of full weights. A checkpoint holds them whole.
        settings: Arguments of Lightning's ``DDPStrategy``, such as ``process_group_backend``.
    """

    def __init__(self, trained: bool = False, **settings: Any) -> None:
        super().__init__(**settings)
        self.trained = trained

    def setup(self, trainer: Trainer) -> None:
        """Splits the networks before the rest moves to the device, which they need not fit on whole."""
        assert self.accelerator is not None
        self.accelerator.setup(trainer)
        model, fitting = self.model, trainer.state.fn == TrainerFn.FITTING
        assert model is not None
        self.precision_plugin.convert_module(model)
        self._shard(_diffusion_model(model))
        self.model_to_device()
        if fitting:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if fitting:
            _optimizers_to_device(self.optimizers, self.root_device)

    def _shard(self, model: DiffusionModel) -> None:
        # a module whose weights an earlier command has split may have another one
        distributed.synchronize(weight for weight in model.trainable.values() if not distributed.is_split(weight))
        lockstep.enabled = True
        whole = set() if self.trained else set(model.trainable.values())
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        for network in model.networks().values():
            shard(network, mesh, whole)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Gathers what is split; all processes call it together."""
        super().save_checkpoint(tree_map(distributed.gathered, checkpoint), filepath, storage_options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Splits the states of weights that are split."""
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for weight, state in optimizer.state.items():
                state.update({name: distributed.split_like(value, weight) for name, value in state.items()})

    def teardown(self) -> None:
        """Ends the splitting of work, not of weights."""
        lockstep.enabled = False
        super().teardown()


StrategyRegistry.register(
    "sharded", Sharded, description="splits the denoising networks over all processes", override=True
)


def shard(network: nn.Module, mesh: DeviceMesh, whole: set[nn.Parameter]) -> None:
    """Splits a network, block by block from the innermost, and its rest.

    Args:
        network: The network; the members of its lists of modules are its blocks.
        mesh: The processes.
        whole: The weights that stay whole.
    """
    for block in [*_blocks(network), network]:
        if any(weight not in whole and not distributed.is_split(weight) for weight in block.parameters()):
            # the rest of a network would otherwise stay whole until the next backward pass, and miss what changes it before
            fully_shard(block, mesh=mesh, reshard_after_forward=True, ignored_params=whole)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for module in reversed(list(network.modules())):
        if isinstance(module, nn.ModuleList):
            yield from module


def _diffusion_model(module: nn.Module) -> DiffusionModel:
    """Returns the diffusion model of a module of this library.

    Raises:
        ValueError: If it has no such model.
    """
    found: Sequence[nn.Module] = [part for part in module.modules() if isinstance(part, DiffusionModel)]
    if not found or not found[0].networks():  # type: ignore[operator]
        raise ValueError(
            f"the strategy sharded: expected a module with a diffusion model of networks, got {type(module).__name__}; use the "
            "strategy ddp"
        )
    return found[0]  # type: ignore[return-value]
