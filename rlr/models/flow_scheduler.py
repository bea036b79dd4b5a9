"""The schedule of a rectified flow from the configuration of diffusers' ``FlowMatchEulerDiscreteScheduler``."""

from collections.abc import Mapping
from typing import Any

from rlr.schedules import FlowMatch, FlowSpacing, dynamic_shift, from_training

UNREAD = ("invert_sigmas", "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling")
"""Settings of the scheduler that :class:`~rlr.schedules.FlowMatch` does not have."""


def check_flow_scheduler(config: Mapping[str, Any], model: str) -> None:
    """Raises ValueError for settings of the scheduler that :class:`~rlr.schedules.FlowMatch` does not have.

    Args:
        config: The scheduler's configuration.
        model: The name of the base model, for the message.
    """
    unknown = [name for name in UNREAD if config.get(name)]
    if config.get("use_dynamic_shifting") and config.get("time_shift_type", "exponential") != "exponential":
        unknown.append("time_shift_type")
    if unknown or "shift" not in config:
        found = f"sets {', '.join(unknown)}" if unknown else "states no shift"
        raise ValueError(
            f"scheduler_config.json {found}, and {model} reads a FlowMatchEulerDiscreteScheduler with a static or "
            "an exponential dynamic shift; take the scheduler of the published model"
        )


def flow_schedule(config: Mapping[str, Any], tokens: int, spacing: FlowSpacing = from_training) -> FlowMatch:
    """Returns the schedule of samples of so many tokens.

    Args:
        config: The scheduler's configuration.
        tokens: The number of the network's tokens of a sample, on which a dynamic shift depends.
        spacing: The unshifted levels that the family's pipeline has.
    """
    terminal = config.get("shift_terminal")
    if not config.get("use_dynamic_shifting"):
        return FlowMatch(config["shift"], spacing=spacing, terminal=terminal)
    names = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = dynamic_shift(tokens, *(config[name] for name in names))
    return FlowMatch(mu=mu, spacing=spacing, terminal=terminal)
