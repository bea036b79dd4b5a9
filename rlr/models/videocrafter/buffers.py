r"""What the file of a VideoCrafter holds of its noise schedule: tables of 1000 times in float32."""

import torch
from torch import Tensor

from rlr.models.videocrafter.architecture import SPACINGS, Architecture
from rlr.schedules import DiscreteSchedule, RescaledSchedule

TIMES = 1000
START, END = 0.00085, 0.012
r"""The first and the last :math:`\beta`."""
RAMP = 400
r"""Times over which :math:`s_\tau` falls; a file with their "bug" holds as many too many."""


def write_buffers(architecture: Architecture) -> dict[str, Tensor]:
    """Returns the tables as its authors compute them, by their names."""
    betas = torch.linspace(START**0.5, END**0.5, TIMES, dtype=torch.float64) ** 2
    abar = (1 - betas).cumprod(0)
    before = torch.cat([torch.ones(1, dtype=torch.float64), abar[:-1]])
    variance = betas * (1 - before) / (1 - abar)
    tables = {
        "betas": betas,
        "alphas_cumprod": abar,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": abar.sqrt(),
        "sqrt_one_minus_alphas_cumprod": (1 - abar).sqrt(),
        "log_one_minus_alphas_cumprod": (1 - abar).log(),
        "sqrt_recip_alphas_cumprod": abar.rsqrt(),
        "sqrt_recipm1_alphas_cumprod": (1 / abar - 1).sqrt(),
        "posterior_variance": variance,
        "posterior_log_variance_clipped": variance.clamp(min=1e-20).log(),
        "posterior_mean_coef1": betas * before.sqrt() / (1 - abar),
        "posterior_mean_coef2": (1 - before) * (1 - betas).sqrt() / (1 - abar),
    }
    if architecture.scale_b is not None:
        count = TIMES if architecture.fix_scale_bug else TIMES + RAMP
        tables["scale_arr"] = RescaledSchedule.ramp(architecture.scale_b, RAMP, count)
    return {name: table.float() for name, table in tables.items()}


def read_schedule(buffers: dict[str, Tensor], architecture: Architecture) -> DiscreteSchedule:
    """Returns the schedule that the tables state."""
    spacing = SPACINGS[architecture.spacing]
    if "scale_arr" in buffers:
        return RescaledSchedule(buffers["alphas_cumprod"], buffers["scale_arr"], spacing)
    return DiscreteSchedule(buffers["alphas_cumprod"], spacing, offset=1)
