#!/usr/bin/env python
"""A door to ``kd-det data digits``."""
from kd_det.cli import digits
from kd_det.cli.command import door

if __name__ == '__main__':
    door(digits)
