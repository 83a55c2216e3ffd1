#!/usr/bin/env python
"""A door to ``kd-det data split-labels``."""
from kd_det.cli import split_labels
from kd_det.cli.command import door

if __name__ == '__main__':
    door(split_labels)
