#!/usr/bin/env python
"""Keep the detections of a finished run: ``python tools/benchmarks/detections.py RUN FOLDER``.

RUN is a work directory of tools/train.py. Its last checkpoint is evaluated on the validation set; FOLDER gets the
detections (COCO results, gzipped) and evaluation.json with figures that are not rounded. Of a CoLAD run both networks'.
"""
import argparse
import pickle

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from kd_det.errors import CheckpointMismatch, CompareError, ConfigError
from kd_det.study.evaluating import evaluate_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('run', help='work directory')
    parser.add_argument('folder', help='where the files go')
    parser.add_argument('--data-root', help='the data set is here instead of the data_root in the config')
    args = parser.parse_args()
    try:
        evaluate_run(args.run, args.folder, args.data_root)
    # UnpicklingError: a checkpoint that asks for more than data
    except (CompareError, ConfigError, CheckpointMismatch, pickle.UnpicklingError) as error:
        raise SystemExit(f'detections: {error}') from None


if __name__ == '__main__':
    main()
