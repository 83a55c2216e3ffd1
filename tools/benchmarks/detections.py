#!/usr/bin/env python
"""A door to ``kd-det detections``."""
from kd_det.cli import detections
from kd_det.cli.command import door

if __name__ == '__main__':
    door(detections)
