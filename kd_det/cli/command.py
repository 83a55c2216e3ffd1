"""How a command is parsed and run, and what its exit status means."""
import argparse
import os
import pickle
import sys
from types import ModuleType

from ..errors import AssignmentMismatch, CheckpointMismatch, CompareError, ConfigError, StudyError

REFUSED = (ConfigError, CheckpointMismatch, AssignmentMismatch, CompareError, StudyError, pickle.UnpicklingError)
"""Bad input: one line for the user. ``UnpicklingError``: a checkpoint that asks for more than data."""
PLACES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError, PermissionError)
"""The system's own words about a path, which name it. Other OSErrors (a lost connection, no memory) keep their trace.
"""


def fill(parser: argparse.ArgumentParser, command: ModuleType) -> argparse.ArgumentParser:
    """Give a parser the command's help and arguments."""
    parser.description = command.SUMMARY
    parser.epilog = 'examples:\n' + command.EXAMPLES.strip('\n')
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    command.add_arguments(parser)
    return parser


def call(command: ModuleType, arguments: list[str], prog: str | None = None, **defaults) -> int:
    """Parse and run one command; its errors pass through.

    Args:
        command: a module with ``SUMMARY``, ``EXAMPLES``, ``add_arguments`` and ``run``.
        arguments: the words after the command's name.
        prog: the name in the help; None: that of the program.
        defaults: values of arguments in place of the command's own defaults.

    Returns:
        int: the exit status.
    """
    parser = fill(argparse.ArgumentParser(prog=prog), command)
    parser.set_defaults(**defaults)
    return command.run(parser.parse_args(arguments)) or 0


def guarded(prog: str, function, /, *arguments, **options) -> int:
    """Call ``function``; bad input becomes a line and status 2, Ctrl-C 130, a reader that has gone (``| head``) 141."""
    try:
        status = function(*arguments, **options)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 141
    except (*REFUSED, *PLACES) as error:
        print(f'{prog}: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f'{prog}: interrupted', file=sys.stderr)
        return 130


def door(command: ModuleType, **defaults) -> None:
    """What a script in ``tools/`` does: be the command, and exit with its status."""
    name = command.__name__.rpartition('.')[2]
    sys.exit(guarded(name, call, command, sys.argv[1:], **defaults))
