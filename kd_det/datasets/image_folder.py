"""Image files in a folder."""
import os
import os.path as osp

from ..errors import DataError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def images_in(key: str, folder: str) -> list[str]:
    """Image files below ``folder``, relative to it, sorted.

    Args:
        key: the option or config key that names the folder, for messages.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not osp.isdir(folder):
        raise DataError(f'{key}: the folder {folder!r} does not exist')
    found = [osp.relpath(osp.join(root, name), folder) for root, _, names in os.walk(folder) for name in names
             if name.lower().endswith(SUFFIXES)]
    if not found:
        raise DataError(f'{key}: no image ({", ".join(SUFFIXES)}) in {folder!r}')
    return sorted(found)
