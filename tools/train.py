#!/usr/bin/env python
"""A door to ``kd-det train``."""
from kd_det.cli import train
from kd_det.cli.command import door

if __name__ == '__main__':
    door(train)
