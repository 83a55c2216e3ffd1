"""A data set in COCO format of what real ones hold and tests forget, made here."""
import json
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

CLASSES = ('disc', 'square')


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    """RGB, two rectangles."""
    image = np.full((height, width, 3), 30, np.uint8)
    image[8:40, 10:30] = (200, 60, 90)
    image[20:44, 34:60] = (40, 220, 70)
    return image


def save(path: Path, kind: str) -> tuple[int, int]:
    """Write one image; returns (width, height) as it is decoded."""
    rgb = picture()
    image = Image.fromarray(rgb)
    if kind == 'grey':
        image.convert('L').save(path)
    elif kind == 'grey, 16 bit':
        cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257)
    elif kind == '16 bit':
        cv2.imwrite(str(path), rgb[..., ::-1].astype(np.uint16) * 257)
    elif kind == 'cmyk':
        image.convert('CMYK').save(path, quality=98)
    elif kind == 'transparent':
        image.convert('RGBA').save(path)
    elif kind == 'palette':
        image.quantize(16).save(path)
    elif kind == 'turned':  # stored upright, with a camera's note that it is to be turned
        exif = Image.Exif()
        exif[0x0112] = 8
        image.transpose(Image.Transpose.ROTATE_270).save(path, quality=98, exif=exif, subsampling=0)
    elif kind == 'large':
        image = image.resize((176, 96))
        image.save(path)
    elif kind == 'tall':
        image = image.resize((40, 120))
        image.save(path)
    else:
        image.save(path)
    return (64, 48) if kind == 'turned' else image.size


BOX = [10, 8, 20, 32]
IMAGES = {  # file -> kind, boxes [x, y, w, h], what each annotation says beside
    'plain.png': ('', [BOX, [34, 20, 26, 24]], {}),
    'none.png': ('', [], {}),
    'crowd.png': ('', [BOX], dict(iscrowd=1)),
    'ignored.png': ('', [BOX], dict(ignore=1)),
    'pixel.png': ('', [[3, 3, 1, 1], [63, 47, 1, 1], [0, 0, 64, 1]], {}),
    'beyond.png': ('', [[-20, -10, 40, 40], [50, 30, 300, 300], [-500, -500, 2000, 2000]], {}),
    'many.png': ('', [[i % 25 * 2.4, i // 25 * 2.2, 2 + i % 5, 2 + i % 7] for i in range(500)], {}),
    'grey.png': ('grey', [BOX], {}),
    'grey16.png': ('grey, 16 bit', [BOX], {}),
    'deep.png': ('16 bit', [BOX], {}),
    'cmyk.jpg': ('cmyk', [BOX], {}),
    'transparent.png': ('transparent', [BOX], {}),
    'turned.jpg': ('turned', [BOX], {}),
    'large.png': ('large', [[27, 16, 55, 64], [94, 40, 70, 48]], {}),
    'tall.png': ('tall', [[6, 20, 12, 80]], {}),
}
BATCHES = {
    'nothing': ('none.png', 'none.png'),
    'no objects, crowds, ignored': ('none.png', 'crowd.png', 'ignored.png'),
    'one pixel, beyond the image': ('pixel.png', 'beyond.png'),
    '500 objects beside none': ('many.png', 'none.png'),
    'grey, 16 bit, CMYK, transparent, turned': ('grey.png', 'grey16.png', 'deep.png', 'cmyk.jpg', 'transparent.png',
                                                'turned.jpg'),
    'mixed sizes': ('large.png', 'tall.png', 'plain.png'),
}


def make(root: Path) -> Path:
    """Write :data:`IMAGES` and their annotations below ``root``."""
    (root / 'images').mkdir(parents=True)
    images, notes = [], []
    for number, (name, (kind, boxes, more)) in enumerate(IMAGES.items()):
        width, height = save(root / 'images' / name, kind)
        images.append(dict(id=number, file_name=name, width=width, height=height))
        for i, box in enumerate(boxes):
            notes.append({'id': len(notes), 'image_id': number, 'category_id': 1 + i % 2, 'bbox': list(box),
                          'area': box[2] * box[3], 'iscrowd': 0, **more})
    (root / 'hard.json').write_text(json.dumps(dict(
        images=images, annotations=notes, categories=[dict(id=k + 1, name=n) for k, n in enumerate(CLASSES)])))
    return root


def dataset_cfg(root: Path) -> dict:
    """A config of the data set, with an ordinary training pipeline."""
    return dict(type='CocoDataset', data_root=str(root), metainfo=dict(classes=CLASSES), ann_file='hard.json',
                data_prefix=dict(img='images/'), filter_cfg=dict(filter_empty_gt=False), pipeline=[
                    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
                    dict(type='Resize', scale=(128, 96), keep_ratio=True), dict(type='RandomFlip', prob=0.5),
                    dict(type='PackDetInputs')])


def batch(dataset, names: tuple[str, ...]) -> dict:
    """The samples of these files, as a loader delivers them."""
    places = [list(IMAGES).index(name) for name in names]
    samples = [dataset[place] for place in places]
    return {key: [sample[key] for sample in samples] for key in ('inputs', 'data_samples')}
