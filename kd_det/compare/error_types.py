"""What kind of mistakes a detector makes, and what each kind costs: the error types of TIDE.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", section 2.2. A detection that
matches no object at IoU ``t_f`` = 0.5 has one type, by its largest IoU with an object of its own class (``own``) and of
another class (``other``); ``t_b`` = 0.1 is where background begins:

==================  ==============================================  ===========================================
type                condition                                       fixed by
==================  ==============================================  ===========================================
``localisation``    t_b <= own < t_f                                moving it onto the object
``classification``  other >= t_f                                    giving it the object's class
``duplicate``       own >= t_f, the object has a better detection   removing it
``background``      own and other < t_b                             removing it
``both``            the rest: other in [t_b, t_f)                   removing it
``missed``          an undetected object that no localisation or    not counting the object
                    classification error points to
==================  ==============================================  ===========================================

The definitions can overlap; the first line that holds decides. If a detection that is fixed by moving or renaming then
competes for an object with other detections, the best score stays and the others are removed. What a type costs is the
AP at IoU 0.5 after fixing this type alone, less the AP50 as it is; costs do not add up to what is missing to 100.

Types and counts equal those of the authors' toolbox (tidecv 1.0.1, compared on random scenes). Costs of classification
and localisation can be above the toolbox's, which drops a fixed detection whose object is detected already, where the
paper drops the one with the lower score.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask
from pycocotools.coco import COCO

from .matching import PER_IMAGE, RECALLS, class_ids

FOREGROUND, BACKGROUND = 0.5, 0.1
TYPES = ('classification', 'localisation', 'both', 'duplicate', 'background', 'missed')
CORRECT, IGNORED = 'correct', 'ignored'
"""Of a detection that matches an object, and of one that matches a crowd or is beyond the best 100 of its class."""


@dataclass
class Errors:
    """The errors of one detector.

    Attributes:
        types (list[str]): by detection, in the order given: :data:`CORRECT`, :data:`IGNORED` or one of :data:`TYPES`.
        targets (list[int | None]): by detection: the annotation that it matches or should have matched.
        undetected (set[int]): annotations that no detection matches.
        missed (set[int]): those of them that are of type ``missed``.
        ap50 (float): AP at IoU 0.5 in percent; NaN without objects.
        costs (dict[str, float]): AP50 points by type; and ``false positives`` and ``false negatives``: removing
            everything that is not correct, and counting no undetected object.
    """
    types: list[str]
    targets: list[int | None]
    undetected: set[int]
    missed: set[int]
    ap50: float
    costs: dict[str, float]

    def counts(self) -> dict[str, int]:
        """How many errors there are of each type."""
        return {name: len(self.missed) if name == 'missed' else self.types.count(name) for name in TYPES}


def find_errors(truth: COCO, detections: Sequence[dict], classes: Sequence[str] | None = None) -> Errors:
    """Type every error and price every type.

    Args:
        truth, detections, classes: as :func:`.matching.match` takes them.
    """
    ids = class_ids(truth, classes)
    types: list[str] = [IGNORED] * len(detections)
    targets: list[int | None] = [None] * len(detections)
    by_image: dict[int, list[int]] = {}
    for i, detection in enumerate(detections):
        if detection['category_id'] in ids:
            by_image.setdefault(detection['image_id'], []).append(i)
    for image, indices in by_image.items():
        _type_image(truth.imgToAnns[image], detections, indices, ids, types, targets)
    objects = {a['id']: a['category_id'] for a in truth.dataset['annotations']
               if a['category_id'] in ids and not a.get('iscrowd')}
    found = {target for target, kind in zip(targets, types) if kind == CORRECT}
    undetected = set(objects) - found
    covered = {target for target, kind in zip(targets, types) if kind in ('classification', 'localisation')}
    missed = undetected - covered
    prices = _Prices(detections, types, targets, objects, ids)
    ap50 = prices.ap50()
    costs = {kind: prices.ap50(moved=kind) - ap50 for kind in ('classification', 'localisation')}
    costs |= {kind: prices.ap50(removed=(kind,)) - ap50 for kind in ('both', 'duplicate', 'background')}
    costs['missed'] = prices.ap50(uncounted=missed) - ap50
    costs['false positives'] = prices.ap50(removed=TYPES) - ap50
    costs['false negatives'] = prices.ap50(uncounted=undetected) - ap50
    return Errors(types, targets, undetected, missed, ap50, costs)


def _type_image(annotations: list[dict], detections: Sequence[dict], indices: list[int], ids: list[int],
                types: list[str], targets: list[int | None]) -> None:
    """Fill ``types`` and ``targets`` for the detections of one image."""
    annotations = [a for a in annotations if a['category_id'] in ids]
    order = sorted(indices, key=lambda i: -detections[i]['score'])
    crowd = np.array([bool(a.get('iscrowd')) for a in annotations], dtype=bool)
    kinds = np.array([a['category_id'] for a in annotations])
    overlaps = np.zeros((len(order), 0))
    if annotations:
        overlaps = np.asarray(mask.iou([detections[i]['bbox'] for i in order], [a['bbox'] for a in annotations],
                                       crowd.astype(int).tolist()))  # (D, G)
    taken = np.zeros(len(annotations), dtype=bool)
    seen = dict.fromkeys(ids, 0)
    for i, overlap in zip(order, overlaps):
        kind = detections[i]['category_id']
        seen[kind] += 1
        if seen[kind] > PER_IMAGE:
            continue
        own = np.where((kinds == kind) & ~crowd, overlap, -1.0) if annotations else np.full(1, -1.0)
        free = np.where(taken, -1.0, own) if annotations else own
        if free.max() >= FOREGROUND:
            # the last of equal overlaps, as pycocotools takes it
            best = len(free) - 1 - int(np.argmax(free[::-1]))
            taken[best] = True
            types[i], targets[i] = CORRECT, annotations[best]['id']
            continue
        if annotations and (overlap[crowd & (kinds == kind)] >= FOREGROUND).any():
            continue  # inside a crowd of its class: counts neither way
        other = np.where((kinds != kind) & ~crowd, overlap, -1.0) if annotations else np.full(1, -1.0)
        best_own, best_other = own.max(), other.max()
        if BACKGROUND <= best_own < FOREGROUND:
            types[i], targets[i] = 'localisation', annotations[int(own.argmax())]['id']
        elif best_other >= FOREGROUND:
            types[i], targets[i] = 'classification', annotations[int(other.argmax())]['id']
        elif best_own >= FOREGROUND:
            types[i], targets[i] = 'duplicate', annotations[int(own.argmax())]['id']
        else:
            types[i] = 'background' if max(best_own, best_other) < BACKGROUND else 'both'


class _Prices:
    """AP50 with errors fixed."""

    def __init__(self, detections: Sequence[dict], types: Sequence[str], targets: Sequence[int | None],
                 objects: dict[int, int], ids: list[int]) -> None:
        self.objects, self.ids = objects, ids
        # in COCO's order: by image, then by score within it; sorting by score keeps this order among equals
        self.entries = sorted(((d['image_id'], -d['score'], d['category_id'], kind, target)
                               for d, kind, target in zip(detections, types, targets) if kind != IGNORED),
                              key=lambda entry: entry[:2])
        self.entries.sort(key=lambda entry: entry[1])

    def ap50(self, moved: str = '', removed: Sequence[str] = (), uncounted: set[int] = frozenset()) -> float:
        """In percent: ``moved`` errors become hits of their targets, ``removed`` ones and ``uncounted`` objects go."""
        hits: dict[int, list[bool]] = {k: [] for k in self.ids}
        reached: set[int] = set()
        for _, _, own_class, kind, target in self.entries:
            if kind in removed:
                continue
            true = kind in (CORRECT, moved)
            if true and moved:
                if target in reached:
                    continue  # a better detection has the object
                reached.add(target)
            hits[self.objects[target] if kind == moved else own_class].append(true)
        values = []
        for k in self.ids:
            own = [i for i, kind in self.objects.items() if kind == k]
            if own:  # a class of which nothing is detected keeps its 0, also if none of its objects is counted
                values.append(_interpolated(np.array(hits[k], dtype=bool), len(set(own) - uncounted)))
        return 100 * float(np.mean(values)) if values else float('nan')


def _interpolated(true: np.ndarray, count: int) -> float:
    """101-point AP of hits and misses, best score first."""
    if not true.any():
        return 0.0
    hits = np.cumsum(true)
    precision = np.maximum.accumulate((hits / np.arange(1, len(true) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / count, RECALLS, side='left')
    return float(np.where(at < len(true), precision[np.minimum(at, len(true) - 1)], 0.0).mean())
