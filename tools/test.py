#!/usr/bin/env python
"""A door to ``kd-det test``."""
from kd_det.cli import test
from kd_det.cli.command import door

if __name__ == '__main__':
    door(test)
