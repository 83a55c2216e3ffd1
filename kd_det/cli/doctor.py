"""``kd-det doctor``: what is installed, what is broken, and what mends it."""
import argparse

from ..doctor import main

SUMMARY = 'say what is installed, what is broken and what mends it'
EXAMPLES = """
  kd-det doctor
  kd-det doctor --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('--json', action='store_true', help='print the report as JSON')


def run(args: argparse.Namespace) -> int:
    """0: a detector took a training step here and nothing is broken; else 1."""
    return main(['--json'] * args.json)
