"""Makes MMEngine, MMCV and MMDetection run on current PyTorch. Knows nothing of distillation.

Three things, each off where it is not needed: :mod:`kd_det.compat.ext` serves ``mmcv._ext`` from torchvision's kernels
where no compiled one exists, :mod:`kd_det.compat.checkpoint` makes every checkpoint route load with
``weights_only=True``, :mod:`kd_det.compat.standard_library` gives back what newer Pythons took away.
"""
from . import checkpoint, ext, standard_library


def install() -> None:
    """Apply all; idempotent. Called by ``import kd_det`` before anything of MMDetection is imported."""
    standard_library.install()
    ext.install()
    checkpoint.install()
