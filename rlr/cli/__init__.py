"""The command line: ``rlr COMMAND --config FILE`` and ``rlr {page,compare} RUN``, or ``python train.py`` in its place."""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlr.cli.difference import DIFF, difference
from rlr.cli.error_messages import sentence
from rlr.cli.on_runs import on_runs
from rlr.cli.output import tolerate_output
from rlr.cli.run_folder import with_run
from rlr.cli.shipped import with_shipped
from rlr.cli.source_index import named_anywhere
from rlr.cli.static_check import DOCTOR, ON_RUNS, check_command, import_classes, usage
from rlr.io.config_files import ConfigError, expand_home_in_option
from rlr.io.terminal import TERMINAL
from rlr.io.threads import wait_briefly

if TYPE_CHECKING:
    from rlr.cli.command_line import CLI

INTERRUPTED = 130
"""The exit status of a process that Ctrl-C has ended, 128 + 2."""

TRACEBACK = "RLR_TRACEBACK"
"""The environment variable that, when set, shows where a mistake was noticed."""


def main(args: Any = None, kind: "type[CLI] | None" = None) -> Any:
    """Checks the arguments, builds module, data and trainer, and runs the command.

    Torch and Lightning are imported after the check, so that ``--help`` and a misspelled name take no time.

    Args:
        args: The arguments, as a list or as a mapping; by default those of the process.
        kind: The command line; a subclass of :class:`~rlr.cli.command_line.CLI` may add to a run what no config holds.

    Returns:
        The finished :class:`~rlr.cli.command_line.CLI`.

    Raises:
        SystemExit: With status 2, after one sentence on stderr, for a mistake in config or data; with status 130 after Ctrl-C, and
            143 after SIGTERM.
    """
    if args is None:
        tolerate_output()
        wait_briefly(os.environ)
        args = sys.argv[1:]
    try:
        return _checked(args, kind)
    except KeyboardInterrupt as left:
        sys.stderr.write(_notes(left))
        raise SystemExit(INTERRUPTED) from None


def _checked(args: Any, kind: "type[CLI] | None") -> Any:
    """Checks the arguments, and runs the command."""
    try:
        if isinstance(args, list | tuple):
            args = [expand_home_in_option(str(arg)) for arg in args]
            if not args or args[0] in ("-h", "--help"):
                sys.stdout.write(usage())
                raise SystemExit(0 if args else 2)
            if args[0] in ON_RUNS:
                return on_runs(args)
            if args == [DOCTOR]:
                return _on_machine()
            args = with_run(with_shipped(args))
            if DIFF in args:
                sys.stdout.write(f"{difference([word for word in args if word != DIFF], main)}\n")
                raise SystemExit(0)
            with TERMINAL.alive():
                TERMINAL.status("importing torch and Lightning")
                check_command(args)
                from rlr.cli import command_line
        else:
            import_classes(named_anywhere([]))
    except ConfigError as error:
        _fail(error)
    return _run(args, kind)


def _on_machine() -> None:
    """States what the machine has."""
    with TERMINAL.alive():
        TERMINAL.status("importing torch")
        from rlr.cli.doctor import on_machine
        from rlr.evaluation.report import say

        text = on_machine()
    say(text)


def _run(args: Any, kind: "type[CLI] | None") -> Any:
    from rlr.cli.command_line import CLI, run
    from rlr.cli.user_errors import ERRORS, USELESS, cause, is_user_error, lost_process

    for useless in USELESS:
        warnings.filterwarnings("ignore", useless)
    warnings.formatwarning = _in_words
    try:
        return run(args, kind or CLI)
    except (*ERRORS, RuntimeError) as error:
        if lost := lost_process(cause(error)):
            _fail(lost, _notes(error))
        if not is_user_error(cause(error)):
            raise
        _fail(cause(error), _notes(error))
    except SystemExit as left:
        sys.stderr.write(_notes(left))
        # Lightning turns Ctrl-C in training into an exit
        if isinstance(left.__context__, KeyboardInterrupt):
            raise SystemExit(INTERRUPTED) from None
        raise


FORMAT = warnings.formatwarning
"""Python's own form of a warning, with the line of code that warns."""


def _in_words(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """Returns a warning of this package as a sentence; the code that warns says nothing to a user."""
    if Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {message}\n"
    return FORMAT(message, category, filename, lineno, line)


def _fail(error: BaseException, notes: str = "") -> None:
    """Ends the process with one sentence, or with the traceback for who asks."""
    if os.environ.get(TRACEBACK):
        raise error
    sys.stderr.write(f"error: {sentence(error)}\n{notes}")
    raise SystemExit(2) from None


def _notes(error: BaseException) -> str:
    """The notes of an exception, a line each; Python prints them itself after a traceback."""
    return "".join(f"{note}\n" for note in getattr(error, "__notes__", ()))
