"""``kd-det configs``: the configs that ship."""
import argparse

from ..errors import ConfigError
from ..shipped import description, shipped_configs

SUMMARY = 'list the configs that ship'
EXAMPLES = """
  kd-det configs
  kd-det configs distill_faster_rcnn
  kd-det configs "*digits*lad*"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('pattern', nargs='?', default='', help='part of the name, or a pattern with * and ?')
    parser.add_argument('--names', action='store_true', help='the names alone')


def run(args: argparse.Namespace) -> int:
    """Print the names as ``kd-det train`` takes them, each with what its file says of itself."""
    names = shipped_configs(args.pattern)
    if not names:
        raise ConfigError(f'configs {args.pattern!r}: no shipped config has that in its name; kd-det configs lists all')
    for name in names:
        print(name if args.names else f'{name}\n    {description(name)}')
    return 0
