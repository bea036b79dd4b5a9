"""LightningModules: what is trained, and the training step."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.modules.alignment import Alignment as Alignment
    from rlr.modules.image import ImageAlignment as ImageAlignment
    from rlr.modules.latents.doodl import DOODL as DOODL
    from rlr.modules.sampling import Prediction as Prediction
    from rlr.modules.sampling import Sampling as Sampling
    from rlr.modules.sharded import Sharded as Sharded
    from rlr.modules.speed import Compile as Compile
    from rlr.modules.speed import Speed as Speed
    from rlr.modules.term_weights import Shrinkage as Shrinkage
    from rlr.modules.video import VideoAlignment as VideoAlignment
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
