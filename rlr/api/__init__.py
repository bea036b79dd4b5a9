"""Alignment from Python: a pipeline, a function and prompts in, an aligned model out."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.api.aligned import Aligned as Aligned
    from rlr.api.alignment import align as align
    from rlr.api.loading import load as load
    from rlr.api.methods import METHODS as METHODS
    from rlr.api.methods import Method as Method
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
