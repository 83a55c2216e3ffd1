"""Detections matched to ground truth as COCO does it, kept per image, so that AP can be computed for any draw of
images.
"""
import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from ..errors import CompareError

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = {'all': (0.0, 1e10), 'small': (0.0, 32.0**2), 'medium': (32.0**2, 96.0**2), 'large': (96.0**2, 1e10)}
"""Ranges of the ground truth's area in square pixels, COCO's; a detection outside that matches nothing is ignored."""
PER_IMAGE = 100


@dataclass
class ClassMatches:
    """One class in one area range; detections of all images, best score first, ties in the order of the images.

    Attributes:
        image (array of int, (D,)): index of each detection's image.
        true, ignored (array of bool, (T, D)): by IoU threshold: matched to an object that counts; counts neither way.
        objects (array of int, (I,)): ground-truth objects that count, by image.
    """
    image: np.ndarray
    true: np.ndarray
    ignored: np.ndarray
    objects: np.ndarray


@dataclass
class Matches:
    """All classes and area ranges: ``table[class][area]``, areas in the order of :data:`AREAS`."""
    images: list[int]
    classes: list[str]
    table: list[list[ClassMatches]]


def load_truth(path: str) -> COCO:
    """A COCO annotation file, without what pycocotools prints.

    Raises:
        CompareError: no such file, or not in COCO's format.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return COCO(path)
    except FileNotFoundError:
        raise CompareError(f'ground truth {path!r} does not exist; say where the data set is '
                           'with --data-root') from None
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise CompareError(f'ground truth {path!r} is no COCO annotation file ({error!r})') from error


def class_ids(truth: COCO, classes: Sequence[str] | None = None) -> list[int]:
    """Category ids, ascending, of the named classes; None takes all.

    Raises:
        CompareError: a class that the ground truth does not have.
    """
    names = {category['name']: category['id'] for category in truth.dataset['categories']}
    if missing := set(classes or ()) - set(names):
        raise CompareError(f'the ground truth has no classes {sorted(missing)}; it has {sorted(names)}')
    return sorted(names.values() if classes is None else (names[name] for name in classes))


def match(truth: COCO, detections: Sequence[dict], classes: Sequence[str] | None = None) -> Matches:
    """Match once; pycocotools decides, so every figure derived from it is COCO's.

    Args:
        truth (COCO): ground truth; all of its images count, also those without objects.
        detections (Sequence[dict]): ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in pixels), ``score``;
            of one class at most the best 100 of an image count.
        classes (Sequence[str] | None): names of those that count; None: all.

    Raises:
        CompareError: a detection in an image that the ground truth does not have; an unknown class.
    """
    ids = class_ids(truth, classes)
    known = set(truth.getImgIds())
    if strange := {d['image_id'] for d in detections} - known:
        raise CompareError(f'detections in {len(strange)} images that the ground truth does not have, e.g. image_id '
                           f'{min(strange)}; they belong to another data set or split')
    with contextlib.redirect_stdout(io.StringIO()):
        # loadRes refuses an empty list; the copies keep what it adds out of the caller's
        found = truth.loadRes([dict(d) for d in detections]) if len(detections) else COCO()
        evaluation = COCOeval(truth, found, 'bbox')
        evaluation.params.catIds, evaluation.params.maxDets = ids, [PER_IMAGE]
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [list(r) for r in AREAS.values()], list(AREAS)
        evaluation.params.iouThrs = THRESHOLDS
        evaluation.evaluate()
    images = [int(i) for i in evaluation.params.imgIds]
    per_class = len(AREAS) * len(images)
    table = [[_joined(evaluation.evalImgs[k * per_class + a * len(images):][:len(images)]) for a in range(len(AREAS))]
             for k in range(len(ids))]
    return Matches(images, [truth.cats[i]['name'] for i in ids], table)


def _joined(by_image: list[dict | None]) -> ClassMatches:
    there = [(i, entry) for i, entry in enumerate(by_image) if entry is not None]
    image = np.array([i for i, entry in there for _ in entry['dtScores']], dtype=np.int64)
    scores = np.array([score for _, entry in there for score in entry['dtScores']])
    order = np.argsort(-scores, kind='mergesort')
    matched, ignored = (np.concatenate([np.asarray(entry[key], dtype=bool) for _, entry in there]
                                       or [np.zeros((len(THRESHOLDS), 0), dtype=bool)], axis=1)[:, order]
                        for key in ('dtMatches', 'dtIgnore'))
    objects = np.array([0 if entry is None else np.count_nonzero(np.asarray(entry['gtIgnore']) == 0)
                        for entry in by_image], dtype=np.int64)
    return ClassMatches(image[order], matched & ~ignored, ignored, objects)


def precisions(matches: Matches, weights: np.ndarray | None = None) -> np.ndarray:
    """AP by class, area range and IoU threshold for weighted images: 101-point interpolation, as COCO.

    An image of weight w counts as if the data set held it w times. Detections are taken in blocks, all copies of an
    image's detection one after the other; among detections of different images with exactly equal scores that is the
    order of the images.

    Args:
        weights (array (B, I) of non-negative int | None): one row a draw; None: every image once.

    Returns:
        array (B, K, A, T): in [0, 1]; NaN where a draw has no object.
    """
    if weights is None:
        weights = np.ones((1, len(matches.images)))
    weights = np.asarray(weights, dtype=np.float64)
    found = np.full((len(weights), len(matches.classes), len(AREAS), len(THRESHOLDS)), np.nan)
    for k, areas in enumerate(matches.table):
        for a, one in enumerate(areas):
            objects = weights @ one.objects  # (B,)
            here = objects > 0
            if not here.any():
                continue
            for t in range(len(THRESHOLDS)):
                found[here, k, a, t] = _average_precision(one.image, one.true[t], one.ignored[t], weights[here],
                                                          objects[here])
    return found


def _average_precision(image: np.ndarray, true: np.ndarray, ignored: np.ndarray, weights: np.ndarray,
                       objects: np.ndarray) -> np.ndarray:
    """(B,) AP of one class at one threshold.

    Only true positives can raise the precision envelope, so the curve is needed at their P positions alone: the
    weights of what counts since the previous true positive are summed by one matrix product.
    """
    positions = np.flatnonzero(true)
    if not len(positions):
        return np.zeros(len(weights))
    image, counted = image[:positions[-1] + 1], ~ignored[:positions[-1] + 1]
    segment = np.searchsorted(positions, np.arange(len(image)))  # which true positive ends the stretch
    steps = np.empty((len(weights), len(positions)))
    block = max(1, 4_000_000 // weights.shape[1])
    for start in range(0, len(positions), block):
        inside = counted & (segment >= start) & (segment < start + block)
        share = np.zeros((weights.shape[1], min(block, len(positions) - start)))  # (I, P): detections by image
        np.add.at(share, (image[inside], segment[inside] - start), 1.0)
        steps[:, start:start + block] = weights @ share
    hits = np.cumsum(weights[:, image[positions]], axis=1)        # (B, P) true positives so far
    total = np.cumsum(steps, axis=1)                              # (B, P) all that count so far
    precision = hits / (total + np.spacing(1))
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    reached = np.searchsorted(RECALLS, hits / objects[:, None], side='right')  # recall levels reached by then
    gained = np.diff(reached, axis=1, prepend=0)
    return (envelope * gained).sum(axis=1) / len(RECALLS)


def figures(found: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of tables from :func:`precisions`, in percent, each (B,); NaN where there is nothing to measure.

    ``AP``, ``AP50``, ``AP75``, ``APs``, ``APm``, ``APl``: mean over the classes that have objects in the draw; and
    ``class/NAME``: AP of one class.
    """
    def mean(part: np.ndarray) -> np.ndarray:
        part = part.reshape(len(part), -1)
        there = ~np.isnan(part)
        counts = there.sum(axis=1)
        sums = np.where(there, part, 0.0).sum(axis=1)
        return 100 * np.divide(sums, counts, out=np.full(len(part), np.nan), where=counts > 0)
    columns = {'AP': mean(found[:, :, 0]), 'AP50': mean(found[:, :, 0, 0]), 'AP75': mean(found[:, :, 0, 5])}
    columns |= {name: mean(found[:, :, i]) for i, name in enumerate(('APs', 'APm', 'APl'), 1)}
    return columns | {f'class/{name}': mean(found[:, k, 0]) for k, name in enumerate(classes)}
