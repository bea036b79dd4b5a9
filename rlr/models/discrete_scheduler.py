"""The schedule of a diffusion in discrete time from the configuration of one of diffusers' schedulers."""

from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers import DDIMScheduler

from rlr.models.prediction import PREDICTIONS, Prediction, noise
from rlr.schedules import DiscreteSchedule, Spacing, leading, linspace, trailing

SPACINGS: dict[str, Spacing] = {"leading": leading, "trailing": trailing, "linspace": linspace}
"""By the ``timestep_spacing`` of a scheduler's configuration."""
NOISELESS = ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler")
"""The schedulers whose last state has no noise, whatever ``set_alpha_to_one`` is."""


def discrete_schedule(config: Mapping[str, Any], kind: Any = DDIMScheduler) -> tuple[DiscreteSchedule, Prediction]:
    """Returns the schedule and the prediction that a scheduler's configuration states.

    Args:
        config: The configuration.
        kind: The class of the scheduler in diffusers that computes the levels.

    Raises:
        ValueError: If it states a prediction or a spacing that is not known here, or a network of noise at zero signal.
    """
    try:
        scheduler = kind.from_config(config)
        prediction = PREDICTIONS[scheduler.config.prediction_type]
        spacing = SPACINGS[scheduler.config.timestep_spacing]
    except (KeyError, NotImplementedError) as error:
        raise ValueError(
            f"scheduler_config.json asks for {error}, which is not known here; prediction_type may be one of "
            f"{', '.join(PREDICTIONS)}, timestep_spacing one of {', '.join(SPACINGS)}"
        ) from error
    if scheduler.alphas_cumprod[-1] == 0 and prediction is noise:
        raise ValueError(
            "scheduler_config.json sets rescale_betas_zero_snr for a network that predicts the noise, which says nothing "
            "of the image at zero signal; unset it, or take a v_prediction model"
        )
    clean = 1.0 if config.get("_class_name") in NOISELESS else float(scheduler.final_alpha_cumprod)
    return DiscreteSchedule(scheduler.alphas_cumprod, spacing, scheduler.config.steps_offset, clean), prediction


def pipeline_scheduler(config: Mapping[str, Any]) -> Any:
    """Returns the scheduler of diffusers that a configuration is of; DDIM's if it states none."""
    kind = getattr(diffusers, str(config.get("_class_name")), DDIMScheduler)
    return kind.from_config(config)
