r"""Samplers: the transition :math:`p(x_{t-1} \mid x_t)` from one denoised estimate.

Write :math:`\hat x_0` for the estimate of :math:`E[x_0 \mid x_t]` and :math:`\hat z = (x_t - \alpha_t \hat x_0) /
\sigma_t` for the implied noise. Every sampler returns a :class:`~rlr.gaussian.Gaussian`.
"""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.samplers.ancestral import Ancestral as Ancestral
    from rlr.samplers.base import Sampler as Sampler
    from rlr.samplers.consistency import Consistency as Consistency
    from rlr.samplers.cps import CPS as CPS
    from rlr.samplers.dance_sde import DanceSDE as DanceSDE
    from rlr.samplers.ddim import DDIM as DDIM
    from rlr.samplers.flow_sde import FlowSDE as FlowSDE
    from rlr.samplers.windowed import Windowed as Windowed
    from rlr.samplers.windows import AllButLast as AllButLast
    from rlr.samplers.windows import FixedWindow as FixedWindow
    from rlr.samplers.windows import RandomWindow as RandomWindow
    from rlr.samplers.windows import SlidingWindow as SlidingWindow
    from rlr.samplers.windows import Window as Window
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
