"""VBench's command line: ``python -m rlr.cli.vbench {weights,sample,score,eval} --help``."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlr.cli.run_folder import Run
from rlr.evaluation.vbench import weights
from rlr.evaluation.vbench.dimensions import DIMENSIONS, SIX, named

if TYPE_CHECKING:
    from rlr.cli.vbench.generation import Source
    from rlr.evaluation.vbench.scoring import Judge
    from rlr.evaluation.vbench.videos import VideoSet


def parser() -> ArgumentParser:
    """Returns the parser of all four commands."""
    parser = ArgumentParser(
        "python -m rlr.cli.vbench", description="Sample the videos of VBench's prompts, and judge them."
    )
    commands = parser.add_subparsers(required=True, metavar="{weights,sample,score,eval}")
    for name, (run, text, groups) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run, ckpt=None, videos=None)
        command.add_argument("--weights", type=Path, help="folder of the weights ($VBENCH_CACHE_DIR, ~/.cache/vbench)")
        for add in groups:
            add(command)
    return parser


def _set_options(command: ArgumentParser) -> None:
    add = command.add_argument
    add("--prompts", help="a VBench_full_info.json (that of the installed package)")
    add("--samples", type=int, default=5, help="videos of each prompt (%(default)s)")
    add(
        "--dimensions", nargs="+", default=[d.name for d in SIX], metavar="NAME", help=f"any of {', '.join(DIMENSIONS)}"
    )
    add("--out", type=Path, help="folder of the results")


def _model_options(command: ArgumentParser) -> None:
    add = command.add_argument
    add(
        "--ckpt",
        type=Path,
        help="checkpoint of `train.py fit`, or the folder of its run; without one, --config's base model",
    )
    add("--config", type=Path, help="config that it was trained with (the one saved in its run)")
    add("--batch", type=int, default=4, help="videos made at once (%(default)s)")
    add("--fps", type=float, help="frames per second of the files (the rate of the model, or 8)")
    add("--enlarge", type=int, default=1, help="side of the square that each pixel becomes (%(default)s)")


def _video_options(command: ArgumentParser) -> None:
    add = command.add_argument
    add("--videos", type=Path, help="folder of the videos")
    add("--name", help="name of the row in the table (that of the run or folder)")
    add("--custom", action="store_true", help="judge every mp4 file on every dimension, whatever its name")
    add("--partial", action="store_true", help="judge a set with missing videos")
    add("--device", help="cuda or cpu (cuda if there is one)")


def list_weights(options: Namespace) -> int:
    """Prints the weights; the status is 1 if a file is not what was published."""
    from rlr.evaluation.report import say

    folder = weights.cache(options.weights)
    say(weights.report(DIMENSIONS.values(), folder))
    return 0 if weights.sound(DIMENSIONS.values(), folder) else 1


def sample(options: Namespace) -> int:
    """Makes the videos."""
    _sample(options, _source(options), _out(options))
    return 0


def score(options: Namespace) -> int:
    """Judges videos."""
    if options.videos is None:
        raise ValueError("there is nothing to judge; set the folder of the videos with --videos")
    _score(options, options.videos, _out(options), {})
    return 0


def evaluate(options: Namespace) -> int:
    """Samples and judges, or judges a folder."""
    if options.videos is not None:
        return score(options)
    source, out = _source(options), _out(options)
    # a missing file fails before hours of sampling
    _judge(options).check(named(options.dimensions))
    if _sample(options, source, out):
        facts = {"config": str(source.config), "checkpoint": str(source.checkpoint) if source.checkpoint else None}
        _score(options, out / "videos", out, facts)
    return 0


COMMANDS: dict[str, tuple[Callable[[Namespace], int], str, tuple[Callable[[ArgumentParser], None], ...]]] = {
    "weights": (list_weights, "list what each dimension loads, and check what is there", ()),
    "sample": (sample, "make the videos of a checkpoint that are missing", (_set_options, _model_options)),
    "score": (score, "judge the videos in a folder", (_set_options, _video_options)),
    "eval": (evaluate, "both, or judge --videos", (_set_options, _model_options, _video_options)),
}
"""The commands by name: what runs, what it is for, and its groups of options."""


def _source(options: Namespace) -> "Source":
    if options.ckpt is None and options.config is None:
        raise ValueError("there is nothing to sample from; set --ckpt, --config for its base model, or --videos")
    from rlr.cli.vbench.generation import Source, config_of

    return Source(options.config or config_of(options.ckpt), options.ckpt, options.further)


def _out(options: Namespace) -> Path:
    """The folder of the results: in the run of the checkpoint, or below ``runs/vbench``."""
    if options.out:
        return options.out
    if options.ckpt and not options.videos:
        return options.ckpt.absolute().parent / "vbench" / options.ckpt.stem
    return Path("runs", "vbench", _name(options))


def _name(options: Namespace) -> str:
    """The name of the videos: their folder, the run of the checkpoint, or the config."""
    if options.videos:
        return options.videos.absolute().name
    return options.ckpt.absolute().parent.name if options.ckpt else options.config.stem


def _sample(options: Namespace, source: "Source", out: Path) -> bool:
    data = {
        "folder": str(out / "videos"),
        "dimensions": options.dimensions,
        "path": options.prompts,
        "batch_size": options.batch,
        "evaluation_samples": options.samples,
        "fps": options.fps,
        "enlarge": options.enlarge,
    }
    return source.sample(data, out)


def _score(options: Namespace, folder: Path, out: Path, facts: dict[str, Any]) -> None:
    from rlr.evaluation.report import say
    from rlr.evaluation.vbench.report import evaluate

    report = evaluate(options.name or _name(options), _set(options), folder, out, _judge(options), facts, say)
    # files first: printing may fail
    paths = report.save(out)
    say(f"\n{report.text()}\n")
    for path in paths:
        say(str(path))


def _set(options: Namespace) -> "VideoSet":
    from rlr.data.vbench import VBenchPrompts
    from rlr.evaluation.vbench.videos import AnyVideos, PromptSet

    if options.custom:
        return AnyVideos(named(options.dimensions))
    prompts = VBenchPrompts(tuple(options.dimensions), options.prompts)
    return PromptSet(prompts.dimensions_of, options.samples, options.partial)


def _judge(options: Namespace) -> "Judge":
    import torch

    from rlr.evaluation.vbench.scoring import Judge

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return Judge(weights.cache(options.weights), device)


def main(args: Sequence[str] | None = None) -> int:
    """Runs a command and returns the exit status."""
    words = parser()
    options, further = words.parse_known_args(args)
    if further and (options.videos or options.run not in (sample, evaluate)):
        words.error(f"unrecognized arguments: {' '.join(further)}")
    options.further = tuple(further)
    try:
        if options.ckpt and options.ckpt.is_dir():
            options.ckpt = Run(options.ckpt).checkpoint()
        status: int = options.run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    return status


if __name__ == "__main__":
    sys.exit(main())
