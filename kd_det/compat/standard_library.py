"""What MMEngine and MMCV use of Python and setuptools, and newer ones have taken away or complain about."""
import importlib.util
import pkgutil
import warnings
from importlib.abc import Loader


def find_loader(fullname: str) -> Loader | None:
    """``pkgutil.find_loader`` as it was before Python 3.14: the loader of a module, None where there is no such module.
    """
    try:
        spec = importlib.util.find_spec(fullname)
    except ModuleNotFoundError:  # of a package above it
        return None
    return None if spec is None else spec.loader


def install() -> None:
    """Give ``pkgutil`` its ``find_loader`` back (MMCV and MMEngine look for ``mmcv._ext`` by it), and keep quiet about
    ``pkg_resources``, which MMEngine loads anew with every config it looks up; idempotent.
    """
    if not hasattr(pkgutil, 'find_loader'):
        pkgutil.find_loader = find_loader
    warnings.filterwarnings('ignore', message='pkg_resources is deprecated', category=UserWarning)
    warnings.filterwarnings('ignore', message=".*'pkgutil.find_loader' is deprecated", category=DeprecationWarning)
