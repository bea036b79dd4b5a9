"""Which errors are mistakes of the user, and which warnings say nothing."""

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.distributed import DistError

from rlr.distributed import rank, world_size

ERRORS = (ValueError, OSError, FloatingPointError, MisconfigurationException)
"""What is raised for a mistake of the user; anything else is a fault of the program, and keeps its traceback."""

USELESS = (
    ".*module.s. in eval mode.*",  # all of ours are, on purpose
    ".*Total length of .* across ranks is zero.*",  # no validation prompts
    ".*LightningCLI's args parameter.*",
    ".*does not have many workers.*",
    ".*Checkpoint directory .* exists and is not empty.*",  # the folder of the run, which holds its config and metrics
    ".*Be aware that when using `ckpt_path`, callbacks used to create the checkpoint.*",  # sampling does not need them
    ".*The dirpath has changed from.*",  # a run that was moved
    # what wrote the checkpoint is not needed to read it; an EMA, which is, is in the config
    r".*Please add the following callbacks: \[.Checkpointing\{[^{}]*\}.\].*",
    ".*Couldn't infer the batch indices.*",  # a prediction holds its own numbers
    ".*(LeafSpec|local_dir_use_symlinks).* is deprecated.*",  # what the libraries pass to each other
)
"""Warnings about what is meant to be so."""


def cause(error: BaseException) -> BaseException:
    """Returns the error that our code raised, where jsonargparse has wrapped it in its own."""
    while error.__cause__ is not None and _raised_in(error).startswith("jsonargparse"):
        error = error.__cause__
    return error


def is_user_error(error: BaseException) -> bool:
    """Whether an error is one of the user: one of ours, or of a callback of Lightning, such as of a monitor that is not logged."""
    callback = isinstance(error, RuntimeError) and _raised_in(error).startswith("lightning.pytorch.callbacks")
    return callback or isinstance(error, ERRORS)


def lost_process(error: BaseException) -> ConnectionError | None:
    """Returns a sentence for the error of an exchange with a process that has ended; None for another error."""
    if world_size() == 1 or not isinstance(error, RuntimeError):
        return None
    if not (isinstance(error, DistError) or any(word in str(error) for word in ("gloo", "NCCL", "ncclRemoteError"))):
        return None
    reason = str(error).splitlines()[0][:200]
    return ConnectionError(
        f"process {rank()} of {world_size()} lost another one, and the job ends: expected an answer, got {reason!r}; the output of "
        "the process that ended first says why"
    )


def _raised_in(error: BaseException) -> str:
    """Returns the module in which an error was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
