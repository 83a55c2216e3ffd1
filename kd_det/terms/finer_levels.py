"""What a teacher's levels say that are finer than all of the student's: its finest level listens to them too."""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError
from .box_coding import per_anchor


def finer_maps(key: str, student: list[tuple], teacher: list[tuple],
               pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """(the student's finest level, teacher level) of each teacher level that has no partner and is finer than all
    levels of the student, where both sides see the same (:func:`kd_det.terms.levels.pair_levels`).

    Args:
        key: of the term in the config, for messages.
        student, teacher: shapes of the levels, (N, C, h, w).
        pairs: (student level, teacher level) of equal stride.

    Raises:
        ConfigError: no maps, or the teacher has no such level.
    """
    if not all(len(shape) == 4 for shape in (*student, *teacher)):
        raise ConfigError(f'{key}.finer_levels: found True, and the layers give {student} (student) and {teacher} '
                          '(teacher); levels of a pyramid of maps (N, C, h, w) are needed')
    finest = max(range(len(student)), key=lambda i: (student[i][2] * student[i][3], -i))
    height, width = student[finest][2:]
    taken = {j for _, j in pairs}
    found = [(finest, j) for j, shape in enumerate(teacher) if j not in taken and shape[2] > height
             and shape[3] > width]
    if not found:
        raise ConfigError(f'{key}.finer_levels: found True, and no level of the teacher ({teacher}) is finer than the '
                          f'student\'s finest ({student[finest]}); leave it out')
    return found


def resampled(hint: Tensor, size: tuple[int, int]) -> Tensor:
    """A finer map at the cells of a coarser one: the mean over what each of them covers.

    Where the strides are k to 1, sizes may differ from k to 1 by rounding: cell i covers the k rows from k i on, as far
    as there are any. At any other ratio the two maps are taken to cover the same area, and means overlap.

    Args:
        hint: (N, C, h, w), the finer map.
        size: (H, W) of the coarser one.

    Returns:
        (N, C, H, W).
    """
    steps = [_step(fine, coarse) for fine, coarse in zip(hint.shape[-2:], size)]
    if None in steps:
        return F.adaptive_avg_pool2d(hint, tuple(size))
    return F.avg_pool2d(hint, steps, ceil_mode=True, count_include_pad=False)


def _step(fine: int, coarse: int) -> int | None:
    """k where ``coarse`` cells of k rows each hold ``fine`` rows, the last one maybe in part."""
    step = -(-fine // coarse)
    return step if -(-fine // step) == coarse and 2 * fine > (2 * step - 1) * coarse else None


def finer_anchors(key: str, student: nn.Module, teacher: nn.Module, scale: int) -> tuple[int, list[tuple[int, int]]]:
    """Which levels of the teacher's RPN lie below the student's finest, and how many of their rows one cell of it
    covers.

    Args:
        key: of the term in the config, for messages.
        student, teacher: RPN heads.
        scale: the teacher's pixels a pixel of the student.

    Returns:
        The student's finest level, and (teacher level, k) of each level whose relative stride is a k-th of its stride.
        Levels at which no whole number of cells fits are left out.

    Raises:
        ConfigError: there is none, or it has another number of anchors a place.
    """
    ours, theirs = student.prior_generator, teacher.prior_generator
    finest = min(range(len(ours.strides)), key=lambda i: ours.strides[i][0])
    found = []
    for j, stride in enumerate(theirs.strides):
        ratios = {scale * side / other for side, other in zip(ours.strides[finest], stride)}
        ratio = min(ratios)
        if len(ratios) > 1 or ratio <= 1 or ratio != int(ratio):
            continue
        counts = ours.num_base_priors[finest], theirs.num_base_priors[j]
        if counts[0] != counts[1]:
            raise ConfigError(f'{key}.finer_levels: the student has {counts[0]} anchors a place at stride '
                              f'{ours.strides[finest][0]}, the teacher {counts[1]} at stride {stride[0]}; they are '
                              'compared one by one, so that equally many are needed; leave it out')
        found.append((j, int(ratio)))
    if not found:
        raise ConfigError(f'{key}.finer_levels: found True, and no level of the teacher (strides {theirs.strides}) has '
                          'a whole number of cells in one of the student\'s finest level (stride '
                          f'{ours.strides[finest]}) at teacher.scale_factor {scale}; leave it out')
    return finest, found


def anchors_of(head: nn.Module, level: int, scores: Tensor, scale: int = 1) -> Tensor:
    """Anchors (h w A, 4) of one level with its scores (N, A C, h, w); xyxy, in pixels ``scale`` times as large as the
    head's own.
    """
    return head.prior_generator.single_level_grid_priors(tuple(scores.shape[-2:]), level, device=scores.device) / scale


def surest(levels: list[tuple[Tensor, Tensor, Tensor, int]], size: tuple[int, int],
           columns: int) -> tuple[Tensor, Tensor, Tensor]:
    """For each anchor of a coarse level what the one of the fitting anchors says that sees an object most.

    Anchor a of cell (y, x) meets anchor a of the k x k cells that (y, x) covers at each finer level, and anchor a of
    (y, x) itself at a level of the same stride (k = 1). An object that the teacher finds on its finest level is thus
    not background to a student who has no such level.

    Args:
        levels: of each level scores (N, A C, k h, k w), deltas (N, 4 A, k h, k w), anchors (k h k w A, 4) and k; the
            last rows and columns may be missing.
        size: (h, w) of the coarse level.
        columns: C. Objectness is the score, or with two columns the difference of object and background, the last one.

    Returns:
        Rows in MMDetection's order of anchors: scores (N h w A, C), deltas (N h w A, 4), and the anchors (N h w A, 4)
        that the deltas are about.
    """
    parts = [[_by_cell(part, size, k, width) for part, width in ((scores, columns), (deltas, 4))]
             + [_by_cell(_as_map(anchors, scores), size, k, 4)] for scores, deltas, anchors, k in levels]
    # (N, h w A, K, C), (.., 4), (1, h w A, K, 4)
    scores, deltas, anchors = (torch.cat(found, -2) for found in zip(*parts))
    seen = scores[..., 0] - scores[..., 1] if columns == 2 else scores[..., 0]
    best = seen.nan_to_num(-torch.inf).argmax(-1)[..., None, None]             # (N, h w A, 1, 1); no cell: NaN
    return tuple(part.expand(len(scores), -1, -1, -1).gather(-2, best.expand(*best.shape[:2], 1, part.shape[-1]))
                 .flatten(0, 2) for part in (scores, deltas, anchors))


def _as_map(anchors: Tensor, scores: Tensor) -> Tensor:
    """(h w A, 4) -> (1, 4 A, h, w)."""
    height, width = scores.shape[-2:]
    return anchors.view(1, height, width, -1).permute(0, 3, 1, 2)


def _by_cell(maps: Tensor, size: tuple[int, int], k: int, columns: int) -> Tensor:
    """(N, A C, k h, k w) -> (N, h w A, k k, C); NaN where rows or columns are missing."""
    height, width = size
    missing = [k * side - has for side, has in zip(size, maps.shape[-2:])]
    if min(missing) < 0 or max(missing) >= max(k, 1):
        raise RuntimeError(f'a teacher\'s map of {tuple(maps.shape[-2:])} places has {k} x {k} in each cell of a map '
                           f'of {tuple(size)}; both networks need the same padding '
                           '(data_preprocessor.pad_size_divisor)')
    maps = F.pad(maps, (0, missing[1], 0, missing[0]), value=torch.nan)
    rows = per_anchor(maps, columns).view(len(maps), height, k, width, k, -1, columns)
    return rows.permute(0, 1, 3, 5, 2, 4, 6).reshape(len(maps), -1, k * k, columns)
