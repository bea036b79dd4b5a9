"""The methods of the board; a new method is one entry.

The order is that of the measurements. Options that a method shares with all others are in :mod:`experiments.board.tracks`.
"""

from dataclasses import dataclass, replace

from experiments.board.tracks import TRACK_A, TRACK_B, TRACK_FLOW, TRACK_LONG, Track
from experiments.methods import RATES, Method, ablations, truncations

_ESTIMATOR = "model.init_args.estimator.init_args"
_GROUPS = ("data.init_args.batch_size=16", "data.init_args.samples_per_prompt=4")
"""The options for batches of whole groups of samples of one prompt."""
_NOISE = "model.init_args.sampler.init_args.noise_level=0.7"
"""The noise of all chains of the flow, since a track has one sampler."""


@dataclass(frozen=True)
class Entry:
    """A method on some tracks.

    Args:
        method: The method.
        tracks: The tracks.
        decisive: Whether it decides the default method, and is measured before the others.
        rate_of: The name of the method whose selected learning rate it has; empty if it has tries of its own.
        ablation: Whether tables of the paper need it, and the pages of the board leave it out.
    """

    method: Method
    tracks: tuple[Track, ...]
    decisive: bool = False
    rate_of: str = ""
    ablation: bool = False


def method(
    name: str,
    config: str,
    *overrides: str,
    samples: int = 16,
    updates_per_round: int = 1,
    rate: str = "model.init_args.optimization.lr",
    rates: tuple[str, ...] = RATES,
) -> Method:
    """Returns a method of a config of images, see :class:`~experiments.methods.Method`."""
    path = f"configs/image/{config}.yaml"
    return Method(name, path, overrides, samples, updates_per_round, rate=rate, rates=rates)


A, B, FLOW = (TRACK_A,), (TRACK_B,), (TRACK_FLOW,)
A_AND_LONG = (TRACK_A, TRACK_LONG)
_TRUNCATION = 'model.init_args.estimator={"class_path":"FirstOrder","init_args":{"steps":2}}'
_RLR = method("RLR (paper)", "tiny_rlr_paper")
_WITHOUT = ablations(_RLR)
ABLATIONS = tuple(found.name for found in _WITHOUT)
"""The names of RLR without its parts, for Table 5."""
_LOOK_AHEAD = method("look-ahead RLR", "tiny_look_ahead")
_RATIOS = {"look-ahead RLR, ratio 0.1": "0.1", "look-ahead RLR, ratio 1": "1.0"}
RATIOS = tuple(_RATIOS)
"""The names of the look-ahead with a weight on the likelihood-ratio half, for Table 5."""
_WITH_RATIO = [
    replace(
        _LOOK_AHEAD.with_overrides(
            f"{_ESTIMATOR}.control.init_args.ratio_weight={weight}",
            f"{_ESTIMATOR}.control.init_args.start_value=true",
        ),
        name=name,
    )
    for name, weight in _RATIOS.items()
]
_DEPTHS = {"K = 1": "1", "K = 5": "5", "K = 10, all": "AllSteps"}
TRUNCATIONS = tuple(_DEPTHS)
"""The names of backpropagation through the last K steps, for Figure 3; K = 2 is DRaFT-2."""
_TRUNCATED = truncations(method("K", "tiny_backprop"), tuple(_DEPTHS.values()), TRUNCATIONS)

ENTRIES = (
    Entry(method("AlignProp", "tiny_alignprop"), A_AND_LONG, decisive=True),
    Entry(method("DRaFT-2", "tiny_backprop", f"{_ESTIMATOR}.steps=2"), A_AND_LONG, decisive=True),
    Entry(_LOOK_AHEAD, A_AND_LONG, decisive=True),
    Entry(method("LeapAlign", "tiny_leapalign"), A, decisive=True),
    Entry(method("LeapAlign, clipped", "tiny_leapalign_clipped"), A, decisive=True),
    Entry(method("DDPO", "tiny_ddpo", updates_per_round=4), (TRACK_A, TRACK_B), decisive=True),
    Entry(_RLR, A, decisive=True),
    Entry(method("half-order RLR", "tiny_rlr_half_order"), A),
    Entry(method("DRaFT-LV", "tiny_draft_lv"), A),
    Entry(method("DRTune", "tiny_drtune"), A),
    Entry(method("Direct-Align", "tiny_direct_align"), A),
    Entry(method("REINFORCE", "tiny_reinforce"), A),
    Entry(method("look-ahead RLR", "tiny_look_ahead_stand_in"), B, decisive=True),
    Entry(method("look-ahead + AWM", "tiny_look_ahead_awm"), B, decisive=True),
    Entry(method("AWM", "tiny_awm", *_GROUPS), B, decisive=True),
    Entry(method("DiffusionNFT", "tiny_nft", *_GROUPS), B, decisive=True),
    Entry(method("RAM", "tiny_ram", *_GROUPS), B, decisive=True),
    Entry(method("GRPO", "tiny_grpo", updates_per_round=2, samples=32), B, decisive=True),
    Entry(method("look-ahead RLR, critic", "tiny_look_ahead_check", *_GROUPS), B),
    Entry(method("REINFORCE", "tiny_reinforce", *_GROUPS), B),
    Entry(method("RLR, half and zeroth order", "tiny_rlr_paper", f"{_ESTIMATOR}.steps=0"), B),
    Entry(method("look-ahead RLR", "tiny_flow_look_ahead"), FLOW),
    Entry(method("DRaFT-2", "tiny_flow_look_ahead", _TRUNCATION), FLOW),
    Entry(method("GRPO", "tiny_flow_grpo", updates_per_round=2, samples=32), FLOW),
    Entry(method("AWM", "tiny_flow_awm", _NOISE), FLOW),
    Entry(method("DiffusionNFT", "tiny_flow_nft", _NOISE), FLOW),
    *(Entry(found, A, rate_of=_RLR.name, ablation=True) for found in _WITHOUT),
    *(Entry(found, A, rate_of="DRaFT-2", ablation=True) for found in _TRUNCATED),
    *(Entry(found, A, rate_of=_LOOK_AHEAD.name, ablation=True) for found in _WITH_RATIO),
)
