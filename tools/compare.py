#!/usr/bin/env python
"""A door to ``kd-det compare``."""
from kd_det.cli import compare
from kd_det.cli.command import door

if __name__ == '__main__':
    door(compare)
