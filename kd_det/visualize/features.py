"""Hint features of an image: the student's before and after the adapter, and the teacher's, as heat maps."""
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from ..compare.sample import Photo, Sample
from ..errors import CompareError
from ..sources.layers import Captured, part_of, run_through
from ..terms.hint import Hint
from .canvas import Panel, grid, heat, read
from .positives import inputs_of
from .subjects import Taught

REDUCTIONS = ('norm', 'mean')


def hints_of(found: Taught) -> list[Hint]:
    """The hints of a distiller whose features are maps.

    Raises:
        CompareError: it has none.
    """
    hints = [term for term in found.model.terms if isinstance(term, Hint) and part_of(term.layer) != 'roi_head'
             and all(len(term.student_shapes[i]) == 4 for i, _ in term.pairs)]
    if not hints:
        raise CompareError(f'{found.name}: none of its terms is a hint on feature maps')
    return hints


def reduced(level: Tensor, reduction: str) -> Tensor:
    """(1, C, h, w) -> (h, w): 'norm' is the root of the mean square over channels, 'mean' their mean."""
    return level[0].square().mean(0).sqrt() if reduction == 'norm' else level[0].mean(0)


@torch.no_grad()
def maps_of(found: Taught, hint: Hint, sample: Sample, photo: Photo, reduction: str) -> Iterator[tuple[Tensor, ...]]:
    """For each pair of levels the student's map, the same behind the adapter, and the teacher's, (h, w) each.

    Maps are cut to the part that shows the image, without padding.
    """
    inputs, samples = inputs_of(found, sample, photo)
    captured = Captured(found.model, {hint.layer: found.model.layer_shapes[hint.layer]})
    with captured.listening():
        run_through(found.model, inputs, {part_of(hint.layer)})
    ours = captured.levels(hint.layer)
    theirs = found.model.sources[hint.source].open(inputs, samples).layer(hint.teacher_layer)
    shape, canvas = samples[0].metainfo['img_shape'][:2], inputs.shape[-2:]
    for k, (i, _) in enumerate(hint.pairs):
        levels = (ours[i], *hint.compared(k, ours, theirs))
        yield tuple(_shown(reduced(level.float(), reduction), shape, canvas) for level in levels)


def _shown(level: Tensor, shape: tuple[int, int], canvas: tuple[int, int]) -> Tensor:
    height, width = (max(1, round(size * part / whole)) for size, part, whole in zip(level.shape, shape, canvas))
    return level[:height, :width].cpu()


def picture(found: Taught, hint: Hint, sample: Sample, photo: Photo, side: int, reduction: str = 'norm') -> Image.Image:
    """A row for each pair of levels; every map has its own scale, which its caption says."""
    image, _ = read(photo.path, side)
    rows = []
    for maps, (i, j) in zip(maps_of(found, hint, sample, photo, reduction), hint.pairs):
        panels = [Panel(image, f'level {i}, {hint.source}\'s level {j}')]
        for name, level in zip(('student', 'behind the adapter', hint.source), maps):
            drawn, low, high = heat(level.numpy(), image.size)
            panels.append(Panel(drawn, f'{name}, {tuple(level.shape)}: {low:.3g} to {high:.3g}'))
        rows.append(panels)
    what = 'root mean square' if reduction == 'norm' else 'mean'
    return grid(rows, f'{hint.names()[0]}: {what} over channels; {hint.layer} <- {hint.source} {hint.teacher_layer}')
