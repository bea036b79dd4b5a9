"""The trained weights of a checkpoint: all of them, and no others."""

from collections.abc import Mapping

from torch import Tensor

from rlr.models.base import DiffusionModel


def load_trained(model: DiffusionModel, found: Mapping[str, Tensor], origin: str) -> None:
    """Puts weights in the place of a model's trained ones.

    Args:
        model: The model.
        found: The weights by name.
        origin: What a message calls the place where they were found.

    Raises:
        ValueError: If a weight is missing, foreign, or of another shape.
    """
    trained = model.trainable
    missing, foreign = trained.keys() - found.keys(), found.keys() - trained.keys()
    misshapen = {key for key in trained.keys() & found.keys() if trained[key].shape != found[key].shape}
    if missing or foreign or misshapen:
        facts = (("is missing", missing), ("is foreign", foreign), ("has another shape", misshapen))
        told = ", ".join(f"{min(keys)} {what} ({len(keys)} such)" for what, keys in facts if keys)
        raise ValueError(
            f"{origin} does not hold the trained weights of this {type(model).__name__}: {told}; load it with the config "
            "it was trained with"
        )
    for name, weight in trained.items():
        weight.data.copy_(found[name])
