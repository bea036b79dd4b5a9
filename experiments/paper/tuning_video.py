"""The learning rate of each method on videos, for Table 3."""

from experiments.command import Command
from experiments.latents import Latents
from experiments.methods import CLIP_LATENTS, CLIP_METHODS, CLIP_TARGETS, ITERATIONS, RATES, Method
from experiments.paper.tuning import SEED, Tuning

SAMPLES = 96
"""The samples of a try."""


class TuningVideo(Tuning):
    """The reward of videos on validation prompts for each method and learning rate."""

    name = "tuning_video"
    title = "The learning rate of each method on videos"
    note = (
        f"{CLIP_TARGETS[0].name} of all frames on 16 validation prompts × 2 samples after {SAMPLES} training samples, one run "
        f"of seed {SEED} a try. Every method has {len(RATES)} tries. DOODL trains no weights: its tries have different largest "
        f"changes of a latent's element by one gradient, in {ITERATIONS} iterations on 4 validation prompts, compared with the "
        "same latents without iterations. The weight 0.01 of half-order RLR and its two steps of first order were chosen earlier, "
        "on images."
    )
    target = CLIP_TARGETS[0]
    methods = (*CLIP_METHODS, CLIP_LATENTS)
    samples = SAMPLES
    evaluation = "experiments/configs/tiny_video_validation.yaml"

    def command(self, method: Method) -> Command:
        if method.samples:
            return super().command(method)
        return Latents(method, "experiments/configs/tiny_latents_validation.yaml", SEED)
