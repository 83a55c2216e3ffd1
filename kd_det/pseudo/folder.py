"""Labelled images of a folder as a COCO annotation file, written image by image and resumable."""
import json
import os
import os.path as osp
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict

import cv2

from ..datasets.image_folder import images_in
from ..errors import DataError
from ..files import write_whole
from .labelling import Labeller
from .thresholds import ClassThreshold

EMPTY_IMAGES = 200  # so many images without a single box end a run: something is wrong, and it should not take a night
PROGRESS = '.progress'
"""Suffix of what is kept beside the file of a run that has not ended."""


def refuse_existing(out: str, overwrite: bool = False) -> None:
    """Raises :class:`DataError` where ``out`` is there and no run of it was cut: somebody may have corrected it."""
    if osp.exists(out) and not osp.exists(out + PROGRESS) and not overwrite:
        raise DataError(f'--out: {out!r} is there already, and may have been corrected by hand; --overwrite replaces '
                        'it')


def label_folder(labeller: Labeller, folder: str, out: str, thresholds: Sequence[ClassThreshold],
                 names: Sequence[str] | None = None, progress: Callable[[int, int, int], None] | None = None,
                 overwrite: bool = False) -> dict:
    """Label every image and write ``out``, a COCO annotation file.

    Objects carry ``score``; boxes between the ignore threshold and the class's threshold are regions with
    ``iscrowd: 1``, which MMDetection hands to assigners as ignored. ``info`` holds teachers and thresholds. What is
    done is kept beside ``out`` (``.progress``) after each image, so that a run that was cut goes on where it stopped;
    it is removed at the end. Images may come and go in between: those that are there are asked about once.

    Args:
        names: image files relative to ``folder``; None: all in it.
        progress: called with (images done, images, boxes so far).
        overwrite: replace ``out`` where it is there.

    Returns:
        What was written.

    Raises:
        DataError: ``out`` is there; not one box in the first 200 images, or in all; an image that cannot be read;
            progress of other settings.
    """
    refuse_existing(out, overwrite)
    names = images_in('--images', folder) if names is None else list(names)
    head = json.dumps(dict(teachers=[[t.config, t.digest] for t in labeller.teachers], classes=labeller.classes,
                           fusion=[labeller.weights, labeller.iou], thresholds=[asdict(row) for row in thresholds]),
                      sort_keys=True)
    done = _resumed(out + PROGRESS, head)
    boxes = sum(not box[5] for name in names if name in done for box in done[name]['boxes'])
    os.makedirs(osp.dirname(osp.abspath(out)), exist_ok=True)
    with open(out + PROGRESS, 'a', encoding='utf-8') as kept:
        if not done:
            kept.truncate(0)
            kept.write(head + '\n')
        for count, name in enumerate(names, 1):
            if name not in done:
                done[name] = _labelled(labeller, osp.join(folder, name), thresholds)
                kept.write(json.dumps(dict(done[name], file=name)) + '\n')
                kept.flush()
                boxes += sum(not box[5] for box in done[name]['boxes'])
            if progress is not None:
                progress(count, len(names), boxes)
            if not boxes and (count == EMPTY_IMAGES or count == len(names)):
                raise DataError(f'not one box above the thresholds in {count} images of {folder!r}: the teacher is not '
                                'trained on such images, or the thresholds '
                                f'{ {row.name: round(row.threshold, 3) for row in thresholds} } are too high')
    coco = _coco(labeller, names, done, thresholds)
    write_whole(out, json.dumps(coco))
    os.remove(out + PROGRESS)
    return coco


def _resumed(path: str, head: str) -> dict[str, dict]:
    """What an earlier run with the same settings did."""
    if not osp.isfile(path):
        return {}
    with open(path, encoding='utf-8') as file:
        lines = file.read().split('\n')
    if lines[0] != head and (len(lines) > 1 or not head.startswith(lines[0])):  # a cut first line is of this run
        raise DataError(f'{path} is of a run with other teachers, thresholds or fusion; remove it, or give another '
                        '--out')
    done = {}
    for line in lines[1:-1]:  # the last one is empty, or was cut
        image = json.loads(line)
        done[image.pop('file')] = image
    if lines[-1]:  # cut in the middle: what was whole is written again
        write_whole(path, '\n'.join(lines[:-1]) + '\n')
    return done


def _labelled(labeller: Labeller, path: str, thresholds: Sequence[ClassThreshold]) -> dict:
    """Size and boxes [x1, y1, x2, y2, score, ignored, label] of one image."""
    image = cv2.imread(path)
    if image is None:
        raise DataError(f'{path} cannot be read as an image')
    height, width = image.shape[:2]
    rows = []
    for box, score, label in zip(*(part.tolist() for part in labeller(path))):
        limit = thresholds[label]
        x1, x2 = (min(max(v, 0.0), float(width)) for v in box[0::2])
        y1, y2 = (min(max(v, 0.0), float(height)) for v in box[1::2])
        if score >= limit.ignore and x2 > x1 and y2 > y1:
            rows.append([x1, y1, x2, y2, score, score < limit.threshold, label])
    return dict(width=width, height=height, boxes=rows)


def _coco(labeller: Labeller, names: Sequence[str], done: dict[str, dict],
          thresholds: Sequence[ClassThreshold]) -> dict:
    images, notes = [], []
    for number, name in enumerate(names, 1):
        images.append(dict(id=number, file_name=name, width=done[name]['width'], height=done[name]['height']))
        for x1, y1, x2, y2, score, ignored, label in done[name]['boxes']:
            notes.append(dict(id=len(notes) + 1, image_id=number, category_id=label + 1, iscrowd=int(ignored),
                              bbox=[round(v, 2) for v in (x1, y1, x2 - x1, y2 - y1)],
                              area=round((x2 - x1) * (y2 - y1), 2), score=round(score, 5)))
    notes = [note for note in notes if note['bbox'][2] > 0 and note['bbox'][3] > 0]
    counts = Counter(note['category_id'] for note in notes if not note['iscrowd'])
    return dict(info=dict(description='pseudo labels', teachers=[dict(config=t.config, checkpoint=t.checkpoint,
                                                                      classes=t.classes) for t in labeller.teachers],
                          thresholds=[asdict(row) for row in thresholds],
                          boxes={name: counts[i] for i, name in enumerate(labeller.classes, 1)}),
                images=images, annotations=notes,
                categories=[dict(id=i, name=name) for i, name in enumerate(labeller.classes, 1)])
