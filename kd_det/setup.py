"""What ``import kd_det`` does: prepare the stack, then register everything."""
from importlib.util import find_spec


def setup() -> None:
    """Install :mod:`kd_det.compat`, then register kd_det's modules in MMDetection's registries; idempotent.

    Without ``mmdet`` nothing is registered: the losses, adapters and the mixture fit need only torch and can be used
    alone. A config that names a kd_det type cannot be built then, and ``python -m kd_det.doctor`` says what to install.
    """
    from . import compat
    compat.install()
    if find_spec('mmdet') is not None:
        from . import registration, shipped
        from .compat import ssd
        ssd.install()
        registration.register()
        shipped.register()
