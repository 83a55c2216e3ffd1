"""Folders of generated images with the same objects annotated in each of the three formats."""
import json
from pathlib import Path

import cv2
import numpy as np
import yaml

CLASSES = ('disc', 'square')
SIZE = (128, 96)


def scene(count=12, seed=0):
    """[(file name, image, [(class index, x, y, w, h)])]: bright rectangles; the second image has no objects."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(count):
        image = rng.integers(0, 80, (SIZE[1], SIZE[0], 3)).astype(np.uint8)
        things = []
        for _ in range(0 if i == 1 else 3):
            w, h = (int(v) for v in rng.integers(16, 48, 2))
            x, y = int(rng.integers(0, SIZE[0] - w)), int(rng.integers(0, SIZE[1] - h))
            label = int(rng.integers(2))
            image[y:y + h, x:x + w, label] = 250
            things.append((label, x, y, w, h))
        found.append((f'photo {i}.png', image, things))
    return found


def write_image(path: Path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), image)


def coco(root: Path, parts=(('train.json', 12),), images='images', start=0) -> Path:
    for name, count in parts:
        pictures, notes = [], []
        for i, (file, image, things) in enumerate(scene(count, seed=start)):
            file = f'{Path(name).stem.replace("/", "_")}_{file}'
            write_image(root / images / file, image)
            pictures.append(dict(id=10 * i, file_name=file, width=SIZE[0], height=SIZE[1]))
            notes += [dict(id=len(notes) + n, image_id=10 * i, category_id=7 + label, bbox=list(box), iscrowd=0,
                           area=box[2] * box[3]) for n, (label, *box) in enumerate(things)]
        path = root / 'annotations' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(dict(images=pictures, annotations=notes, categories=[
            dict(id=7 + i, name=name) for i, name in enumerate(CLASSES)])))
        start += 1
    return root


def xml(things, size=SIZE, names=CLASSES) -> str:
    objects = ''.join(f'<object><name>{names[label]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
                      f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
                      for label, x, y, w, h in things)
    return f'<annotation><size><width>{size[0]}</width><height>{size[1]}</height></size>{objects}</annotation>'


def voc(root: Path, parts=(('', 12),), start=0) -> Path:
    for folder, count in parts:
        for file, image, things in scene(count, seed=start):
            write_image(root / folder / 'JPEGImages' / f'{folder}{file}', image)
            path = root / folder / 'Annotations' / f'{folder}{Path(file).stem}.xml'
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(xml(things))
        start += 1
    return root


def yolo(root: Path, parts=(('', 12),), start=0, names='data.yaml') -> Path:
    for folder, count in parts:
        for file, image, things in scene(count, seed=start):
            write_image(root / 'images' / folder / file, image)
            path = root / 'labels' / folder / f'{Path(file).stem}.txt'
            path.parent.mkdir(parents=True, exist_ok=True)
            if things:  # an image without objects has no file
                path.write_text(''.join(f'{label} {(x + w / 2) / SIZE[0]:.6f} {(y + h / 2) / SIZE[1]:.6f} '
                                        f'{w / SIZE[0]:.6f} {h / SIZE[1]:.6f}\n' for label, x, y, w, h in things))
        start += 1
    if names == 'data.yaml':
        places = {folder or 'train': f'images/{folder}' for folder, _ in parts}
        (root / names).write_text(yaml.safe_dump(dict(names=list(CLASSES), **places)))
    else:
        (root / names).write_text('\n'.join(CLASSES))
    return root
