#!/usr/bin/env python
"""A door to ``kd-det study``, with paths below this repository wherever one stands."""
from pathlib import Path

from kd_det.cli import study
from kd_det.cli.command import door

if __name__ == '__main__':
    door(study, root=str(Path(__file__).resolve().parents[2]))
