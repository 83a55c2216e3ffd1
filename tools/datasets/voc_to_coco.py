#!/usr/bin/env python
"""A door to ``kd-det data voc``."""
from kd_det.cli import voc
from kd_det.cli.command import door

if __name__ == '__main__':
    door(voc)
