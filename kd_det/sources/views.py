"""One image as it was augmented, resized and padded: what an answer of the teacher belongs to."""
import functools
import hashlib
import json
import os
import os.path as osp
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

PIXELS = 32
"""Places of each image whose colours are kept with the answers."""
TOLERANCE = 2.0
"""Grey levels, mean over the places: JPEG decoders differ by that much; another picture, or a mirrored one, by more."""


def view_of(sample: Any, canvas: tuple[int, int]) -> str:
    """A name, 16 hex digits, for the view that a sample is.

    It says which image (id, file name and size in bytes), in which size, mirrored how, and padded to which canvas: the
    batch's padding reaches features near the border, and norms over the whole map everywhere.

    Args:
        sample: with ``img_shape``, ``flip`` and ``flip_direction``, ``img_id`` and ``img_path`` in its metainfo.
        canvas: (H, W) of the batch.
    """
    meta = sample.metainfo
    path = meta.get('img_path') or ''
    flip = meta.get('flip_direction') if meta.get('flip') else None
    what = [str(meta.get('img_id')), osp.basename(path), file_size(path),
            [int(side) for side in meta['img_shape'][:2]], flip, [int(side) for side in canvas]]
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=8).hexdigest()


@functools.cache
def file_size(path: str) -> int:
    """Bytes; 0 for what is no file here (an archive's member, a remote store's object)."""
    try:
        return os.stat(path).st_size if path else 0
    except OSError:
        return 0


def words_of(sample: Any) -> str:
    """The view, for messages."""
    meta = sample.metainfo
    flip = f', mirrored {meta.get("flip_direction") or ""}'.rstrip() if meta.get('flip') else ''
    height, width = meta['img_shape'][:2]
    return f'image {meta.get("img_path") or meta.get("img_id")} ({height}x{width}{flip})'


@functools.lru_cache(maxsize=4096)
def _places(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple((torch.rand(PIXELS, generator=generator) * side).long() for side in (height, width))


class Colours:
    """The colours of an image at a few fixed places, before normalisation, in the order of channels of its file.

    They are kept with the answers for a view, so that other pixels under the same name are found out: a random change
    of colours, another crop, a file that was replaced.

    Args:
        preprocessor: that of the student, whose normalisation is undone; an image without one is taken as it is.
    """

    def __init__(self, preprocessor: nn.Module | None) -> None:
        known = preprocessor is not None and type(preprocessor) is not BaseDataPreprocessor
        self._flip = known and bool(getattr(preprocessor, '_channel_conversion', False))
        self._mean = self._std = None
        if known and getattr(preprocessor, '_enable_normalize', False):
            self._mean, self._std = (getattr(preprocessor, name).reshape(1, -1, 1).cpu().float()
                                     for name in ('mean', 'std'))

    def __call__(self, inputs: Tensor, samples: list) -> list[np.ndarray]:
        """(N, C, H, W), as the student sees them -> N times (C, PIXELS), uint8."""
        found = []
        for image, sample in zip(inputs, samples):
            ys, xs = _places(*(int(side) for side in sample.metainfo['img_shape'][:2]))
            found.append(image[:, ys.to(image.device), xs.to(image.device)])
        colours = torch.stack(found).detach().float().cpu()  # (N, C, PIXELS), the host waits once
        if self._mean is not None:
            colours = colours * self._std + self._mean
        if self._flip:
            colours = colours.flip(1)
        return list(colours.round().clamp(0, 255).to(torch.uint8).numpy())


def difference(one: np.ndarray, other: np.ndarray) -> float:
    """Mean difference of two :class:`Colours`, grey levels."""
    if one.shape != other.shape:
        return float('inf')
    return float(np.abs(one.astype(np.float32) - other.astype(np.float32)).mean())
