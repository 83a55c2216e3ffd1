"""Detections of an evaluation set as a small file: COCO's result format, gzipped JSON.

``gzip.open`` and ``json.load`` give the list that ``pycocotools``' ``loadRes`` takes. Equal detections give equal
bytes.
"""
import gzip
import hashlib
import json
from collections.abc import Sequence

from mmengine.evaluator import BaseMetric

from ..errors import CompareError
from ..files import write_whole
from .matching import PER_IMAGE

SUFFIX = '.detections.json.gz'
LIMIT = 300_000
ROUNDINGS = ((2, 4), (1, 4), (1, 3))
"""Decimals of pixels and of scores; the first with which the file stays below :data:`LIMIT` bytes, or else the last.

A Faster R-CNN on BCCD (159 images, 5,131 detections) takes 89, 74 and 71 KB; its AP changes by 0.02 at most.
"""


class KeptDetections(BaseMetric):
    """Collects a test loop's detections in COCO's result format beside the metrics of the config.

    Args:
        category_ids (Sequence[int]): by label of the detector.
    """

    def __init__(self, category_ids: Sequence[int]) -> None:
        super().__init__(prefix='kept')
        self.category_ids = list(category_ids)
        self.detections: list[dict] = []

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            found = sample['pred_instances']
            boxes, scores, labels = (found[key].detach().cpu().double().tolist()
                                     for key in ('bboxes', 'scores', 'labels'))
            self.results.append([
                dict(image_id=int(sample['img_id']), category_id=self.category_ids[int(label)],
                     bbox=[x1, y1, x2 - x1, y2 - y1], score=score)
                for (x1, y1, x2, y2), score, label in zip(boxes, scores, labels)])

    def compute_metrics(self, results: list) -> dict:
        self.detections = [detection for image in results for detection in image]
        return {}


def compact(detections: Sequence[dict], box_digits: int, score_digits: int) -> list[dict]:
    """The best 100 of every image, rounded, images in the order of their ids, best score first."""
    by_image: dict[int, list[dict]] = {}
    for detection in detections:
        by_image.setdefault(detection['image_id'], []).append(detection)
    return [dict(image_id=d['image_id'], category_id=d['category_id'],
                 bbox=[_short(value, box_digits) for value in d['bbox']], score=_short(d['score'], score_digits))
            for _, found in sorted(by_image.items())
            for d in sorted(found, key=lambda d: -d['score'])[:PER_IMAGE]]


def _short(value: float, digits: int) -> float | int:
    value = round(value, digits)
    return int(value) if value == int(value) else value


def write_detections(path: str, detections: Sequence[dict]) -> str:
    """Write :func:`compact` detections, as fine as :data:`LIMIT` allows. Returns the file's SHA-256."""
    for digits in ROUNDINGS:
        packed = gzip.compress(json.dumps(compact(detections, *digits), separators=(',', ':')).encode(), mtime=0)
        if len(packed) < LIMIT:
            break
    write_whole(path, packed)
    return hashlib.sha256(packed).hexdigest()


def read_detections(path: str) -> list[dict]:
    """What :func:`write_detections` wrote, or COCO results as plain JSON.

    Raises:
        CompareError: no such file, or not COCO's result format.
    """
    try:
        with open(path, 'rb') as file:
            content = file.read()
        found = json.loads(gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content)
        if not isinstance(found, list) or any(not {'image_id', 'category_id', 'bbox', 'score'} <= set(d)
                                              for d in found):
            raise ValueError('a list of image_id, category_id, bbox and score is expected')
    except FileNotFoundError:
        raise CompareError(f'no detections in {path!r}') from None
    except (ValueError, OSError, EOFError, TypeError) as error:
        raise CompareError(f'{path}: no detections in COCO\'s result format ({error})') from error
    return found


def file_hash(path: str) -> str:
    """SHA-256 of a file of detections."""
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()
