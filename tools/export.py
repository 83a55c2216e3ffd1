#!/usr/bin/env python
"""The student as plain MMDetection files, and as ONNX: ``python tools/export.py CHECKPOINT OUT [--onnx]``."""
import argparse
import pickle
import sys

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from kd_det.cli import export
from kd_det.errors import CheckpointMismatch, ConfigError


def main() -> int:
    parser = argparse.ArgumentParser(description=f'{export.SUMMARY}\n\n{export.EXAMPLES}',
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    export.add_arguments(parser)
    try:
        return export.run(parser.parse_args())
    # UnpicklingError: a checkpoint that asks for more than data
    except (ConfigError, CheckpointMismatch, pickle.UnpicklingError) as error:
        print(f'export: {error}', file=sys.stderr)
        return 2


if __name__ == '__main__':
    sys.exit(main())
