"""The built-in models."""

from typing import TYPE_CHECKING

from rlr.lazy import lazy_names

if TYPE_CHECKING:
    from rlr.toy.models.tiny import Tiny as Tiny
    from rlr.toy.models.tiny_flow import TinyFlow as TinyFlow
    from rlr.toy.models.tiny_video import TinyVideo as TinyVideo
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)
