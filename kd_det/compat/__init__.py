"""Makes MMEngine, MMCV and MMDetection run on current PyTorch. Knows nothing of distillation.

Two things, each off where it is not needed: :mod:`kd_det.compat.ext` serves ``mmcv._ext`` from torchvision's kernels
where no compiled one exists, :mod:`kd_det.compat.checkpoint` makes every checkpoint route load with
``weights_only=True``.
"""
from . import checkpoint, ext


def install() -> None:
    """Apply both; idempotent. Called by ``import kd_det`` before anything of MMDetection is imported."""
    ext.install()
    checkpoint.install()
