"""A picture of some labelled images, to be looked at before anything is trained on them."""
import os.path as osp

import cv2
import numpy as np

from ..errors import DataError

COLOURS = ((40, 40, 220), (200, 120, 20), (40, 160, 40), (160, 40, 160), (20, 160, 200), (120, 120, 120))
SIDE = 480  # pixels of a tile


def check_sample(path: str) -> None:
    """Raises :class:`DataError` where no picture can be written; asked before hours of labelling."""
    folder = osp.dirname(osp.abspath(path))
    if not osp.splitext(path)[1] or not cv2.haveImageWriter(path):
        raise DataError(f'--sample: {path!r}; the name of a picture is expected, such as sample.jpg or sample.png')
    if not osp.isdir(folder):
        raise DataError(f'--sample: {path!r}, and there is no folder {folder!r}')


def draw_sample(coco: dict, folder: str, out: str, count: int = 9, seed: int = 0) -> None:
    """A grid of images with boxes, objects in full lines with class and score, ignored regions thin and grey."""
    chosen = sorted(np.random.default_rng(seed).permutation(len(coco['images']))[:count])
    names = {category['id']: category['name'] for category in coco['categories']}
    tiles = []
    for index in chosen:
        entry = coco['images'][index]
        image = cv2.imread(osp.join(folder, entry['file_name']))
        scale = SIDE / max(image.shape[:2])
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        for note in coco['annotations']:
            if note['image_id'] == entry['id']:
                _draw(image, note, names, scale)
        tile = np.zeros((SIDE, SIDE, 3), np.uint8)
        tile[:image.shape[0], :image.shape[1]] = image[:SIDE, :SIDE]
        tiles.append(tile)
    across = int(np.ceil(np.sqrt(len(tiles))))
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % across)
    grid = np.vstack([np.hstack(tiles[i:i + across]) for i in range(0, len(tiles), across)])
    if not cv2.imwrite(out, grid):
        raise DataError(f'--sample: {out!r} cannot be written')


def _draw(image: np.ndarray, note: dict, names: dict[int, str], scale: float) -> None:
    x, y, w, h = (int(v * scale) for v in note['bbox'])
    colour = (160, 160, 160) if note['iscrowd'] else COLOURS[(note['category_id'] - 1) % len(COLOURS)]
    cv2.rectangle(image, (x, y), (x + w, y + h), colour, 1 if note['iscrowd'] else 2)
    if not note['iscrowd']:
        cv2.putText(image, f'{names[note["category_id"]]} {note["score"]:.2f}', (x, max(y - 3, 10)),
                    cv2.FONT_HERSHEY_SIMPLEX, 0.4, colour, 1, cv2.LINE_AA)
