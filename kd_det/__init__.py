"""kd_det: knowledge distillation for object detection, as MMDetection 3 plugins.

``import kd_det`` makes the OpenMMLab stack run on the installed PyTorch (:mod:`kd_det.compat`) and registers every
detector, head, loss, adapter, hook and transform in MMDetection's own registries, so
``custom_imports = dict(imports=['kd_det'])`` is all a config needs.
"""
import sys

from .version import __version__

# ``python -m kd_det.doctor`` examines broken installations, so it must start on one; it calls setup() itself, guarded.
if 'kd_det.doctor' not in sys.orig_argv:
    from .setup import setup
    setup()

__all__ = ['__version__']
