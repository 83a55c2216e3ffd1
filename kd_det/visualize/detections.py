"""Ground truth and detectors side by side: what each detects, and the same by type of error."""
from collections.abc import Sequence

from PIL import Image

from ..compare.error_types import CORRECT, TYPES, Errors
from ..compare.report_gallery import COLORS
from ..compare.sample import Photo, Sample
from .canvas import COLOURS, Mark, Panel, grid, marked, read


def side_by_side(sample: Sample, photo: Photo, names: Sequence[str], detections: Sequence[Sequence[dict]], score: float,
                 side: int) -> Image.Image:
    """A panel of ground truth and one for each detector; a colour is a class.

    Args:
        sample, photo: the image.
        names: of the detectors.
        detections: of each, as :func:`kd_det.compare.sample.detect` gives them.
        score: detections below it are not drawn.
        side: pixels of a panel's longer side.
    """
    image, scale = read(photo.path, side)
    truth = [Mark(thing['bbox'], _colour(thing['category_id']), sample.classes[thing['category_id']],
                  bool(thing['iscrowd'])) for thing in sample.objects(photo)]
    panels = [Panel(marked(image, scale, truth), f'ground truth: {len(truth)} objects')]
    for name, found in zip(names, detections):
        rows = [row for row in found if row['image_id'] == photo.id and row['score'] >= score]
        marks = [Mark(row['bbox'], _colour(row['category_id']),
                      f'{sample.classes[row["category_id"]]} {row["score"]:.2f}')
                 for row in reversed(rows)]
        panels.append(Panel(marked(image, scale, marks), f'{name}: {len(rows)} detections'))
    return grid([panels], f'{_file(photo)}, detections of score {score:g} and above')


def _colour(label: int) -> str:
    return COLOURS[label % len(COLOURS)]


def _file(photo: Photo) -> str:
    return photo.path.replace('\\', '/').rsplit('/', 1)[-1]


def mistakes(sample: Sample, photo: Photo, names: Sequence[str], detections: Sequence[Sequence[dict]],
             errors: Sequence[Errors], score: float, side: int) -> Image.Image:
    """One panel for each detector; a colour is a type of error, and missed objects are dashed.

    Args:
        errors: of each detector, as :func:`kd_det.compare.error_types.find_errors` gives them for these detections;
            those below ``score`` must not be among them.
        others: as for :func:`side_by_side`.
    """
    image, scale = read(photo.path, side)
    things = sample.objects(photo)
    panels = []
    for name, found, theirs in zip(names, detections, errors):
        here = [(row, kind) for row, kind in zip(found, theirs.types)
                if row['image_id'] == photo.id and row['score'] >= score]
        lost = [thing for thing in things if thing['id'] in theirs.missed]
        marks = [Mark(thing['bbox'], COLORS['missed'], f'missed {sample.classes[thing["category_id"]]}', True)
                 for thing in lost]
        marks += [Mark(row['bbox'], COLORS[kind], f'{"" if kind == CORRECT else kind + " "}'
                       f'{sample.classes[row["category_id"]]} {row["score"]:.2f}') for row, kind in reversed(here)]
        counts = {kind: sum(one == kind for _, one in here) for kind in TYPES if kind != 'missed'}
        counts['missed'] = len(lost)
        said = ', '.join(f'{count} {kind}' for kind, count in counts.items() if count) or 'no error'
        panels.append(Panel(marked(image, scale, marks),
                            f'{name}: {sum(kind == CORRECT for _, kind in here)} correct; {said}'))
    return grid([panels], f'{_file(photo)}, types of errors (TIDE) of detections of score {score:g} and above')
