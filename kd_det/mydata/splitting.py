"""A train and a validation part where a data set has none."""
import hashlib
import os.path as osp
import random
import re
from collections import Counter, defaultdict

from ..errors import DataError
from .found import ALL, TRAIN, VAL, Found, Part, Picture


def split(root: str, found: Found, share: float = 0.2, seed: int = 0) -> list[str]:
    """Draw a validation part from what is there to train on, in place; nothing is changed where there is one.

    Images whose files are equal, and copies that Roboflow augmented from one photograph (``NAME.rf.HASH``), stay
    together. Classes are taken in order of their rarity, and of each so many groups are drawn that the part has its
    share of the images with that class, at least one, where there are two or more.

    Args:
        root: the data folder.
        share: of the images, for validation.
        seed: another draw.

    Returns:
        list[str]: what was done, in one line, or nothing.

    Raises:
        DataError: ``share`` is no share; too few images.
    """
    if VAL in found.parts:
        return []
    if not 0 < share < 1:
        raise DataError(f'--val-share: found {share}; a share between 0 and 1 is expected, such as 0.2')
    name = ALL if ALL in found.parts else TRAIN
    pool = found.parts.pop(name)
    groups = _groups(root, pool.pictures)
    if len(groups) < 2:
        raise DataError(f'--data: {len(pool.pictures)} images, of which {len(groups)} differ; at least two are needed, '
                        'one to train and one to measure on')
    chosen = _drawn(groups, share, seed)
    for part, inside in ((TRAIN, False), (VAL, True)):
        pictures = [picture for i, group in enumerate(groups) for picture in group if (i in chosen) == inside]
        pictures.sort(key=lambda picture: picture.file)
        found.parts[part] = Part(pool.source, pictures, list(pool.classes))
    count = len(found.parts[VAL].pictures)
    return [f'split: {count} of {len(pool.pictures)} images ({count / len(pool.pictures):.0%}) are for validation, '
            f'drawn class by class with seed {seed}, because there was no validation part']


def _groups(root: str, pictures: list[Picture]) -> list[list[Picture]]:
    """Pictures that must not be torn apart, in order of their names."""
    sizes = Counter(osp.getsize(osp.join(root, picture.file)) for picture in pictures)
    found: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: picture.file):
        path = osp.join(root, picture.file)
        key = re.sub(r'\.rf\.[0-9a-f]{8,}', '', picture.file) if '.rf.' in picture.file else picture.file
        if key == picture.file and sizes[osp.getsize(path)] > 1:
            with open(path, 'rb') as file:
                key = hashlib.sha256(file.read()).hexdigest()
        found[key].append(picture)
    return list(found.values())


def _drawn(groups: list[list[Picture]], share: float, seed: int) -> set[int]:
    order = list(range(len(groups)))
    random.Random(seed).shuffle(order)
    labels = [{thing.label for picture in group for thing in picture.things} for group in groups]
    with_class = {label: [i for i in order if label in labels[i]] for label in sorted(set().union(*labels))}
    chosen: set[int] = set()
    wanted = max(1, round(share * len(groups)))
    for label in sorted(with_class, key=lambda label: (len(with_class[label]), label)):
        members = with_class[label]
        quota = 0 if len(members) < 2 else min(max(1, round(share * len(members))), len(members) - 1)
        for i in members:
            if sum(j in chosen for j in members) >= quota:
                break
            chosen.add(i)
    for i in order:  # images without objects, and rounding
        if len(chosen) >= min(wanted, len(groups) - 1):
            break
        chosen.add(i)
    return chosen
