"""Makes the embedded demo set: real handwritten digits on photographs, COCO format, no network.

    kd-det data digits [--out data/digits] [--train 400] [--dev 100] [--val 200] [--size 320x240] [--seed 0] [--force]

Ink: the 1,797 8x8 digits of scikit-learn (``load_digits``, UCI Optical Recognition of Handwritten Digits). Background:
its two photographs (``load_sample_images``). Ten classes '0' .. '9'.

Result, three roles: train (fit), dev (for choosing), val (for reporting)::

    OUT/images/{train,dev,val}_000000.jpg     one directory
    OUT/annotations/{train,dev,val}.json      file_name relative to OUT/images
    OUT/meta.json                             the parameters, by which a finished set is known

No digit sample and no pixel of a photograph serves two splits. Image i of a split depends on (seed, split, i, size)
alone, so asking for more images only appends. Bytes repeat for the same versions of OpenCV and numpy (both are written
to meta.json).
"""
import argparse
import json
import os
import re
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np

SPLITS = ('train', 'dev', 'val')
SHARES = (0.6, 0.15, 0.25)  # of the digit samples of every class
CLASSES = tuple('0123456789')
GENERATOR = 2  # raised whenever the pictures change, so that an older set is not reused unnoticed

# Each photograph is cut into 2 rows x 4 columns of tiles; every split sees sky or leaves, and
# a piece of the building and of the flower. The letters are the first ones of the splits.
TILES = ('tdtd'
         'vtvt',
         'dttv'
         'tdvt')


def split_samples(targets, seed):
    """Indices of the digit samples per split and class, by a seeded stratified permutation.

    Args:
        targets (ndarray): (N,) class of every sample, 0 .. 9.
        seed (int): any non-negative integer.

    Returns:
        dict: split -> list of ten index arrays, disjoint between splits.
    """
    pools = {split: [] for split in SPLITS}
    for label in range(10):
        rng = np.random.default_rng([seed, len(SPLITS), label])
        members = rng.permutation(np.flatnonzero(targets == label))
        cuts = np.round(np.cumsum(SHARES)[:-1] * len(members)).astype(int)
        for split, part in zip(SPLITS, np.split(members, cuts)):
            pools[split].append(part)
    return pools


def split_tiles(photos):
    """Tiles per split: list of (photo number, (x, y, w, h)); tiles never overlap."""
    tiles = {split: [] for split in SPLITS}
    for number, (photo, letters) in enumerate(zip(photos, TILES)):
        height, width = photo.shape[0] // 2, photo.shape[1] // 4
        for place, letter in enumerate(letters):
            split = next(s for s in SPLITS if s[0] == letter)
            box = (place % 4 * width, place // 4 * height, width, height)
            tiles[split].append((number, box))
    return tiles


def write_split(folder, split, count, size, seed, sources, say):
    """Pictures and annotation file of one split, into ``folder``."""
    import cv2

    from .draw_digits import background, draw, expose
    images, targets, photos = sources
    pool, tiles = split_samples(targets, seed)[split], split_tiles(photos)[split]
    number, start = SPLITS.index(split), time.perf_counter()
    base = number * 1_000_000  # ids differ between splits and do not depend on their sizes
    coco = {'info': {'description': 'scikit-learn digits on its photographs'}, 'licenses': [],
            'images': [], 'annotations': [],
            'categories': [{'id': k + 1, 'name': name} for k, name in enumerate(CLASSES)]}
    for index in range(count):
        rng = np.random.default_rng([seed, number, index])
        photo, region = tiles[rng.integers(len(tiles))]
        picture = draw(rng, background(rng, photos[photo], region, size), images, pool)
        done, data = cv2.imencode('.jpg', expose(rng, picture.canvas),
                                  [cv2.IMWRITE_JPEG_QUALITY, 92])
        if not done:
            raise OSError('OpenCV could not encode a JPEG image')
        name = f'{split}_{index:06d}.jpg'
        (folder / 'images' / name).write_bytes(data.tobytes())
        image_id = base + index + 1
        coco['images'].append({
            'id': image_id, 'file_name': name, 'width': size[0], 'height': size[1],
            'photo': int(photo), 'region': list(region)})
        for thing, (label, sample) in picture.digits.items():
            box = picture.box(thing)
            coco['annotations'].append({
                'id': base * 10 + len(coco['annotations']) + 1, 'image_id': image_id,
                'category_id': label + 1, 'bbox': box, 'area': box[2] * box[3], 'iscrowd': 0,
                'sample': sample})
        if (index + 1) % 200 == 0 or index + 1 == count:
            say(f'{split}: {index + 1}/{count} images, {len(coco["annotations"])} digits, '
                f'{time.perf_counter() - start:.1f} s')
    (folder / 'annotations' / f'{split}.json').write_text(json.dumps(coco))


def load_sources():
    """(1797, 8, 8) digits, (1797,) classes, two (427, 640, 3) photographs as BGR."""
    try:
        from sklearn.datasets import load_digits, load_sample_images

        from . import draw_digits  # noqa: F401  (OpenCV)
        digits, photos = load_digits(), load_sample_images().images
    except ImportError as error:
        raise ImportError(f'the digits set needs scikit-learn, pillow and OpenCV ({error}): '
                          'pip install scikit-learn pillow opencv-python-headless') from error
    return digits.images, digits.target, [
        np.ascontiguousarray(photo[:, :, ::-1]) for photo in photos]


def foreign_files(out):
    """Names in ``out`` that this program did not put there."""
    ours = re.compile(r'meta\.json|annotations(/(train|dev|val)\.json)?|'
                      r'images(/(train|dev|val)_\d{6,}\.jpg)?')
    names = (path.relative_to(out).as_posix() for path in out.rglob('*'))
    return sorted(name for name in names if not ours.fullmatch(name))


def damage(out):
    """What a set with a meta.json lacks, or None."""
    for split in SPLITS:
        path = out / 'annotations' / f'{split}.json'
        try:
            images = json.loads(path.read_text())['images']
        except (OSError, ValueError, KeyError) as error:
            return f'{path}: {error}'
        here = set(os.listdir(out / 'images')) if (out / 'images').is_dir() else set()
        lost = [image['file_name'] for image in images if image['file_name'] not in here]
        if lost:
            return f'{len(lost)} images are gone, the first {out / "images" / lost[0]}'
    return None


def reusable(out, wanted, force):
    """Whether ``out`` holds the wanted set. Raises FileExistsError rather than lose anything."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / 'meta.json').is_file():
        raise FileExistsError(f'{out} exists and is no digits set (it has no meta.json); nothing '
                              'was touched. Give another --out, or move it away.')
    try:
        found = json.loads((out / 'meta.json').read_text())['parameters']
    except (ValueError, KeyError, TypeError) as error:
        found = f'unreadable ({error!r})'
    problem = damage(out) if found == wanted else f'made with {found}, asked for {wanted}'
    if problem is None and not force:
        return True
    if not force:
        raise FileExistsError(f'{out} holds another or a damaged digits set: {problem}. Nothing '
                              'was touched. --force replaces it; another --out keeps both.')
    strangers = foreign_files(out)
    if strangers:
        raise FileExistsError(f'--force would delete files that are not part of the digits set in '
                              f'{out}: {strangers[:5]}. Nothing was touched. Move them away.')
    return False


def make(out='data/digits', train=400, dev=100, val=200, size=(320, 240), seed=0, force=False,
         say=print):
    """Makes the digits set in ``out``, or keeps the same set if it is there. See the module text.

    Args:
        out (str | Path): folder to make; appears complete or not at all.
        train, dev, val (int): images per split, at least 1.
        size (tuple): (width, height) in pixels, at least 64 each; digits scale with it, from 24 to 120 pixels at (320,
            240) and never under 10.
        seed (int): non-negative.
        force (bool): replace a different or damaged digits set.
        say (callable): receives progress lines.

    Returns:
        Path: ``out``.

    Raises:
        ValueError: a number out of range.
        FileExistsError: something else is in ``out``; nothing was touched.
        ImportError: scikit-learn, pillow or OpenCV is missing.
    """
    for name, count in (('train', train), ('dev', dev), ('val', val)):
        if not 1 <= count < 1_000_000:
            raise ValueError(f'--{name} {count}: give 1 to 999999 images')
    if len(size) != 2 or not all(64 <= n <= 4096 for n in size):
        raise ValueError(f'--size {size}: width and height must be 64 to 4096 pixels')
    if seed < 0:
        raise ValueError(f'--seed {seed}: must not be negative')
    wanted = {'generator': GENERATOR, 'train': train, 'dev': dev, 'val': val, 'size': list(size),
              'seed': seed}
    given, out = Path(out), Path(out).resolve()  # a link keeps pointing at the set
    if reusable(out, wanted, force):
        say(f'{given}: the same digits set is here already, kept ({wanted})')
        return given
    sources = load_sources()
    import cv2
    out.parent.mkdir(parents=True, exist_ok=True)
    prefix = f'.{out.name}.partial-'
    for rest in out.parent.glob(prefix + '*'):
        say(f'{rest}: left by a run that was killed, or in use by one still going')
    temporary = Path(tempfile.mkdtemp(prefix=prefix, dir=out.parent))
    try:
        fresh = temporary / 'new'
        (fresh / 'images').mkdir(parents=True)
        (fresh / 'annotations').mkdir()
        for split, count in zip(SPLITS, (train, dev, val)):
            write_split(fresh, split, count, size, seed, sources, say)
        versions = {'numpy': np.__version__, 'opencv': cv2.__version__}
        (fresh / 'meta.json').write_text(
            json.dumps({'parameters': wanted, 'made_with': versions}, indent=1))
        if reusable(out, wanted, force):  # another process was quicker
            return given
        if out.exists():
            out.rename(temporary / 'old')
        try:
            fresh.rename(out)
        except BaseException:  # also an interrupt: the old set must not go with the temporary
            if not out.exists() and (temporary / 'old').exists():
                (temporary / 'old').rename(out)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    say(f'{given}: {train} train, {dev} dev, {val} val images of {size[0]}x{size[1]}, seed {seed}')
    return given


def parse_size(text):
    match = re.fullmatch(r'(\d+)[xX](\d+)', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text!r} is not WIDTHxHEIGHT, such as 320x240')
    return int(match[1]), int(match[2])


def add_arguments(parser):
    """The command line's flags."""
    parser.add_argument('--out', default='data/digits')
    for split, count in (('train', 400), ('dev', 100), ('val', 200)):
        parser.add_argument(f'--{split}', type=int, default=count, help=f'images, default {count}')
    parser.add_argument('--size', type=parse_size, default=(320, 240), help='WIDTHxHEIGHT')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--force', action='store_true', help='replace another digits set')
