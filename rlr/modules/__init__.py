"""LightningModules: what is trained, and the training step."""

from rlr.modules.alignment import Alignment
from rlr.modules.doodl import DOODL
from rlr.modules.image import ImageAlignment
from rlr.modules.objective import Objective
from rlr.modules.pretraining import autoencoder, denoiser, reward
from rlr.modules.sampling import Prediction, Sampling
from rlr.modules.video import VideoAlignment
