"""The files of a run that was trained in memory, which its page is made of."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlr.callbacks import MetricsFile
from rlr.callbacks.run_page import keep
from rlr.callbacks.sample_files import write_samples
from rlr.chain import Chain
from rlr.cli.run_folder import LAST
from rlr.evaluation import SampleGrid
from rlr.evaluation.evaluator import Evaluated, Evaluator, View
from rlr.evaluation.metrics import as_metrics, parts
from rlr.evaluation.provenance import provenance
from rlr.evaluation.results import Results
from rlr.evaluation.samples import SampleSet
from rlr.models.export import Card
from rlr.records.record import FACTS, METRICS, TRAINING
from rlr.rewards import Reward

NUMBER = 8
"""The number of prompts of which there are samples."""


def check_free(folder: Path, caller: str) -> None:
    """Raises a ``ValueError`` if the folder holds another run."""
    if (folder / LAST).exists():
        raise ValueError(f"{caller}: expected a folder without a run, found {folder / LAST}; name another folder")


def write_files(
    folder: Path,
    chain: Chain,
    history: Sequence[Mapping[str, float]],
    card: Card,
    reward: Reward | None,
    prompts: Sequence[str],
) -> None:
    """Writes ``metrics.csv``, ``run.json``, and samples with their evaluation, where the folder has none of its own.

    Args:
        folder: The folder.
        chain: The aligned model with its sampler.
        history: The numbers of each update.
        card: The facts of the training.
        reward: The reward; without one there are no samples.
        prompts: The prompts of the training.
    """
    if not (folder / METRICS).is_file():
        _write_history(folder, history)
    if not (folder / FACTS).is_file():
        stated = " · ".join(f"{name} {value}" for name, value in card.settings.items())
        keep(folder, {"command": "fit", "line": "", "summary": stated, **provenance(chain.model.device)})
    if reward is not None and not (folder / "samples").is_dir():
        _write_samples(folder, chain, reward, SampleSet(list(prompts[:NUMBER])), len(history))


def _write_history(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    logger = MetricsFile(folder)
    for row in history:
        logger.log_metrics({name: value for name, value in row.items() if name != "update"}, int(row["update"]))
    logger.save()


def _write_samples(folder: Path, chain: Chain, reward: Reward, samples: SampleSet, update: int) -> None:
    grid, metrics, fps = SampleGrid(NUMBER), as_metrics(parts(reward)), chain.model.size.fps
    evaluator = Evaluator(samples, metrics, grid.rows(samples))
    now, base = evaluator.evaluate(chain), _of_base(evaluator, chain)
    sets = {TRAINING: evaluator.measurements(now, base)}
    facts = provenance(chain.model.device)
    Results(update, sets, {TRAINING: samples.prompts}, facts).write(folder / "evaluation" / "fit")
    drawing = grid.draw(View(samples, update, metrics[0], now, base, fps))
    write_samples(folder / "samples" / "last", TRAINING, drawing, fps)


def _of_base(evaluator: Evaluator, chain: Chain) -> Evaluated | None:
    """Returns what is found of the base model; None of a model that does not keep it."""
    if not chain.model.has_reference:
        return None
    with chain.model.reference():
        return evaluator.evaluate(chain)
