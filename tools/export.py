#!/usr/bin/env python
"""A door to ``kd-det export``."""
from kd_det.cli import export
from kd_det.cli.command import door

if __name__ == '__main__':
    door(export)
