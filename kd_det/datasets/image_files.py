"""What is wrong with an image file, and which size it has once a pipeline has decoded it."""
import os.path as osp

import mmcv
from PIL import Image

TAIL = 4096  # bytes in which the end marker is looked for; some cameras write a little behind it
ENDS = {b'\xff\xd8': b'\xff\xd9', b'\x89PNG': b'IEND'}
"""First bytes of a format -> what stands at the end of a whole file."""


def image_damage(path: str) -> str | None:
    """What is wrong with an image file, in words; None if nothing is found.

    Reads the beginning and the end. JPEG and PNG files without their end marker are decoded to be sure: some decoders
    deliver what there is, and grey for the rest.
    """
    try:
        if osp.getsize(path) == 0:
            return 'it is empty (0 bytes)'
        with open(path, 'rb') as file:
            begin = file.read(8)
            file.seek(-min(TAIL, osp.getsize(path)), 2)
            tail = file.read()
    except OSError as error:
        return f'it cannot be read ({error.strerror or error})'
    end = next((last for first, last in ENDS.items() if begin.startswith(first)), None)
    if end is not None and end in tail:
        return None
    try:
        with Image.open(path) as image:
            if end is not None:
                image.load()
    except Image.UnidentifiedImageError:
        return None if _decoded(path) is not None else 'it is no image that can be decoded'
    except (OSError, SyntaxError, ValueError) as error:  # PIL's words for a PNG that is none are a SyntaxError
        return f'it was cut off or is damaged ({error})'
    return None


def decoded_size(path: str, flag: str = 'color', backend: str | None = None) -> tuple[int, int] | None:
    """(width, height) of what the pipeline gets; None for a file that cannot be decoded.

    The header says it, unless the camera noted how it was held: then it depends on ``flag`` and ``backend`` of
    ``LoadImageFromFile`` whether the image is turned (it is by default), and it is decoded.
    """
    try:
        with Image.open(path) as image:
            if image.getexif().get(0x0112, 1) in (0, 1):  # orientation
                return image.size
    except (OSError, SyntaxError, ValueError):
        pass
    found = _decoded(path, flag, backend)
    return None if found is None else (found.shape[1], found.shape[0])


def _decoded(path: str, flag: str = 'color', backend: str | None = None):
    try:
        with open(path, 'rb') as file:
            return mmcv.imfrombytes(file.read(), flag=flag, backend=backend)
    except Exception:  # each decoder has errors of its own
        return None
