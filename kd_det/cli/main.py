"""``kd-det COMMAND``: the table of commands.

A command is one file in this folder with

- ``SUMMARY``: one line for the list of commands,
- ``EXAMPLES``: indented command lines for its help,
- ``add_arguments(parser)``: its arguments,
- ``run(args) -> int``: parse and call, no logic of its own; errors are raised (:data:`.command.REFUSED`),

and one line in :data:`COMMANDS`. A name of two words (``data digits``) is a command in a group.

Exit status: 0 done; 1 an expected 'no', such as ``doctor`` finding something broken or a study with failed runs; 2 bad
input, said in one line; 130 Ctrl-C; 141 whoever read the output has gone.
"""
import argparse
import sys

from ..version import __version__
from . import (
    compare,
    configs,
    detections,
    digits,
    distill,
    doctor,
    export,
    long_tail,
    plan,
    prepare,
    pseudo_label,
    record,
    split_labels,
    study,
    test,
    train,
    visualize,
    voc,
)
from .command import fill, guarded

COMMANDS = {
    'train': train,
    'distill': distill,
    'test': test,
    'compare': compare,
    'visualize': visualize,
    'plan': plan,
    'configs': configs,
    'data digits': digits,
    'data voc': voc,
    'data split-labels': split_labels,
    'data long-tail': long_tail,
    'data prepare': prepare,
    'pseudo-label': pseudo_label,
    'record': record,
    'export': export,
    'study': study,
    'detections': detections,
    'doctor': doctor,
}
GROUPS = {'data': 'make or convert a data set'}


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    top = argparse.ArgumentParser(prog='kd-det', description='Knowledge distillation for object detection.',
                                  epilog='kd-det COMMAND --help says more, with examples.')
    top.add_argument('--version', action='version', version=f'kd_det {__version__}')
    commands = top.add_subparsers(dest='command', metavar='COMMAND', required=True)
    groups = {name: commands.add_parser(name, help=text, description=text)
              .add_subparsers(dest='member', metavar='COMMAND', required=True) for name, text in GROUPS.items()}
    for name, command in COMMANDS.items():
        group, _, member = name.rpartition(' ')
        place = groups[group] if group else commands
        fill(place.add_parser(member, help=command.SUMMARY), command).set_defaults(run_command=command.run)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run ``kd-det``; returns the exit status."""
    args = parser().parse_args(arguments)
    return guarded('kd-det', args.run_command, args) or 0


if __name__ == '__main__':
    sys.exit(main())
