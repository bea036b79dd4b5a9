"""LightningModules: what is trained, and the training step."""

from rlr.modules.alignment import Alignment
from rlr.modules.image import ImageAlignment
from rlr.modules.latents.doodl import DOODL
from rlr.modules.objective import Objective
from rlr.modules.sampling import Prediction, Sampling
from rlr.modules.video import VideoAlignment
