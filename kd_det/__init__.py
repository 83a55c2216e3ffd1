"""kd_det: knowledge distillation for object detection, as MMDetection 3 plugins.

``import kd_det`` makes the OpenMMLab stack run on the installed PyTorch (:mod:`kd_det.compat`) and registers every
detector, head, loss, adapter, hook and transform in MMDetection's own registries, so
``custom_imports = dict(imports=['kd_det'])`` is all a config needs.
"""
import os
import sys
from itertools import pairwise

from .version import __version__


def _doctor_is_asked(words: list[str]) -> bool:
    """``kd-det doctor``, ``python -m kd_det doctor`` or ``python -m kd_det.doctor``."""
    names = ('kd-det', 'kd-det.exe', 'kd_det')
    return 'kd_det.doctor' in words or any(os.path.basename(program) in names and command == 'doctor'
                                           for program, command in pairwise(words))


# The doctor examines broken installations, so it must start on one; it calls setup() itself, guarded.
if not _doctor_is_asked(sys.orig_argv):
    from .setup import setup
    setup()

__all__ = ['__version__']
