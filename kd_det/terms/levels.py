"""Which level of one pyramid corresponds to which of another, and where a batch is padding."""
import torch
from torch import Tensor


def pair_levels(student: list[tuple], teacher: list[tuple]) -> list[tuple[int, int]]:
    """Which student level is compared with which teacher level: those of equal stride, always.

    Args:
        student, teacher: shapes, (N, C, h, w) for maps, (N, L, C) for tokens, (N, C) for vectors, of test images that
            show the same: each side's image has the size that this side sees. A stride relative to the side's own image
            is then equal where h and w are: teacher P3 belongs to student P2 if the teacher sees twice the resolution,
            and P3 to P3 if both see the same, however many levels each has.

    Returns:
        list[tuple[int, int]]: (student level, teacher level); levels without a partner do not appear. Where several
        levels of one side have the same size (outputs of successive layers), they are paired in order. Vectors and
        tokens are paired in order, if there are equally many. One level on each side is one pair, whatever its size:
        the config names both.
    """
    if len(student) == len(teacher) == 1 or (len(student) == len(teacher) and all(len(s) < 4 for s in student)):
        return [(i, i) for i in range(len(student))]
    free = list(range(len(teacher)))
    pairs = []
    for exact in (True, False):  # partners of exactly equal size are never lost to one that differs by rounding
        for i, shape in enumerate(student):
            if len(shape) != 4 or any(i == one for one, _ in pairs):
                continue
            partner = next((j for j in free if len(teacher[j]) == 4 and _alike(shape[2:], teacher[j][2:], exact)), None)
            if partner is not None:
                free.remove(partner)
                pairs.append((i, partner))
    return sorted(pairs)


def _alike(one: tuple, other: tuple, exact: bool) -> bool:
    """Equal sizes, or sizes that the rounding of one stride explains (13 and 12, not 2 and 1)."""
    if exact:
        return tuple(one) == tuple(other)
    return all(abs(a - b) <= 1 and min(a, b) >= 4 for a, b in zip(one, other))


def image_mask(samples: list, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor | None:
    """Where a feature map shows images and not padding.

    Args:
        samples: N samples, whose ``img_shape`` is the image without padding.
        canvas: (H, W) of the padded batch, pixels.
        size: (h, w) of the map.

    Returns:
        bool (N, 1, h, w), True at cells that contain a part of their image; None where no image is padded.
    """
    shapes = [sample.metainfo['img_shape'][:2] for sample in samples]
    if all(tuple(shape) == tuple(canvas) for shape in shapes):
        return None
    mask = torch.zeros(len(shapes), 1, *size, dtype=torch.bool)
    for row, (height, width) in zip(mask, shapes):
        # cell i covers pixels from i H / h on
        row[:, :-(-height * size[0] // canvas[0]), :-(-width * size[1] // canvas[1])] = True
    return mask


def token_mask(samples: list, canvas: tuple[int, int], sizes: list[tuple[int, int]], count: int) -> Tensor | None:
    """The same for the tokens of a transformer's encoder: maps of several levels, row by row, one after another.

    Args:
        samples, canvas: see :func:`image_mask`.
        sizes: (h, w) of each map.
        count: of the tokens, L.

    Returns:
        bool (N, L, 1); None where no image is padded, or the tokens are other ones than the maps' cells.
    """
    if sum(height * width for height, width in sizes) != count:
        return None
    masks = [image_mask(samples, canvas, size) for size in sizes]
    return None if masks[0] is None else torch.cat([mask.flatten(1) for mask in masks], 1).unsqueeze(-1)
