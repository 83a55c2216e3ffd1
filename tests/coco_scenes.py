"""Made-up ground truth and detections in COCO's format."""
import contextlib
import io

import numpy as np
from pycocotools.coco import COCO


def coco(images, categories, annotations):
    """A COCO object from ids of images, names of categories and (image, category, box, crowd) of annotations."""
    truth = COCO()
    truth.dataset = dict(
        images=[dict(id=i, width=320, height=240, file_name=f'{i}.png') for i in images],
        categories=[dict(id=k + 1, name=name) for k, name in enumerate(categories)],
        annotations=[dict(id=n + 1, image_id=i, category_id=k, bbox=list(box), area=box[2] * box[3], iscrowd=int(crowd))
                     for n, (i, k, box, crowd) in enumerate(annotations)])
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
    return truth


def random_scene(images=12, seed=0, classes=('cat', 'dog', 'eel')):
    """Objects of every COCO size, some crowds, an image without objects; class 'eel' is rare.

    Returns (truth, one, other): two detectors, the second a bit worse. Scores are all different.
    """
    rng = np.random.default_rng(seed)
    notes, detections = [], ([], [])
    for i in range(images):
        for _ in range(0 if i == 3 else rng.integers(1, 7)):
            side = rng.choice([14, 28, 60, 120])
            box = [*rng.uniform(0, 120, 2), side * rng.uniform(0.7, 1.4), side * rng.uniform(0.7, 1.4)]
            kind = 3 if i == 5 and len(classes) > 2 else int(rng.integers(1, 3))
            notes.append((10 * i, kind, box, rng.random() < 0.1))
            for quality, found in zip((0.08, 0.14), detections):
                for _ in range(rng.integers(0, 3)):
                    shifted = np.array(box) + rng.normal(0, quality, 4) * side
                    right = kind if rng.random() < 0.85 else int(rng.integers(1, len(classes) + 1))
                    found.append(dict(image_id=10 * i, category_id=right, score=float(rng.random()),
                                      bbox=[*shifted[:2], *np.maximum(shifted[2:], 2)]))
        for found in detections:
            for _ in range(rng.integers(0, 4)):
                found.append(dict(image_id=10 * i, category_id=int(rng.integers(1, len(classes) + 1)),
                                  bbox=[*rng.uniform(0, 200, 2), *rng.uniform(5, 90, 2)],
                                  score=float(rng.random() * 0.6)))
    return coco([10 * i for i in range(images)], classes, notes), *detections
