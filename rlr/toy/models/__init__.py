"""The built-in models."""

from rlr.toy.models.tiny import Tiny as Tiny
from rlr.toy.models.tiny_video import TinyVideo as TinyVideo
