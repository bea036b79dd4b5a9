"""Writing trained weights for other programs."""

from rlr.models.export.base import Exporter as Exporter
