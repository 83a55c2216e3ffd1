"""Are the images of a data set there, whole, and of the sizes that the annotation file states."""
import os.path as osp

from ..datasets.image_files import decoded_size, image_damage
from ..errors import DataError

CHECKED_FILES = 2000  # looked up on disk per data set; all of COCO takes too long over a network drive
CHECKED_SIZES = 500   # of these, opened: beginning and end are read, the rest only where they say that it has to be
SHOWN = 5


def check_images(key: str, dataset: dict, coco: dict, root: str, sizes: str = 'error') -> list[str]:
    """Look at images spread evenly over the file's list.

    Args:
        key (str): of the data set, for messages.
        dataset (dict): its config.
        coco (dict): its annotation file.
        root (str): its ``data_root``.
        sizes (str): ``'error'``, or ``'skip'`` to say that sizes differ and go on.

    Returns:
        list[str]: warnings.

    Raises:
        DataError: naming the files.
    """
    folder = osp.join(root, (dataset.get('data_prefix') or {}).get('img', ''))
    if not osp.isdir(folder):
        raise DataError(f'{key}.data_prefix.img: the folder {folder!r} does not exist')
    images = _spread(coco['images'], CHECKED_FILES)
    missing = [image['file_name'] for image in images if not osp.isfile(osp.join(folder, image['file_name']))]
    if missing:
        raise DataError(f'{key}: {len(missing)} of the {len(images)} images looked up are not in {folder!r}, the first '
                        f'one is {missing[0]!r}')
    images = _spread(images, CHECKED_SIZES)
    broken = [(image['file_name'], found) for image in images
              if (found := image_damage(osp.join(folder, image['file_name'])))]
    if broken:
        listed = '; '.join(f'{name}: {what}' for name, what in broken[:SHOWN])
        raise DataError(f'{key}: {len(broken)} of the {len(images)} images looked at in {folder!r} cannot be trained '
                        f'on: {listed}. Mend them, or take them out of {dataset["ann_file"]}')
    return _check_sizes(key, dataset, images, folder, sizes)


def _check_sizes(key: str, dataset: dict, images: list[dict], folder: str, policy: str) -> list[str]:
    """Stated against decoded sizes; boxes are in the pixels of one of them, and training takes them for the decoded."""
    load = _loading(dataset)
    flag, backend = load.get('color_type', 'color'), load.get('imdecode_backend')
    other = []
    for image in images:
        stated = (image['width'], image['height'])
        found = decoded_size(osp.join(folder, image['file_name']), flag, backend)
        if found is not None and found != stated:
            other.append((image['file_name'], stated, found))
    if not other:
        return []
    turned = sum(stated == found[::-1] for _, stated, found in other)
    listed = ', '.join(f'{name} is stated as {w}x{h} and decoded as {found[0]}x{found[1]}'
                       for name, (w, h), found in other[:SHOWN])
    text = (f'{key}: {len(other)} of the {len(images)} images looked at have another size than the annotation file '
            f'says (width x height): {listed}')
    if turned:
        text += (f'. Of these, {turned} have width and height swapped: a camera held upright notes a rotation (EXIF), '
                 'which decoding applies and the file\'s author did not. Save the images as they were annotated, '
                 'without the note, or, if the boxes go with the stored pixels, set '
                 'color_type=\'color_ignore_orientation\' in LoadImageFromFile')
    if policy == 'error':
        raise DataError(text + ". MMDetection would take out objects outside the stated size and train on the others "
                        "where they are not. Correct width and height, and see whether the boxes are right; if they "
                        "are: data_check=dict(image_sizes='skip')")
    return [text]


def _loading(dataset: dict) -> dict:
    for transform in dataset.get('pipeline') or []:
        if str(transform.get('type')).rsplit('.', 1)[-1].startswith('LoadImageFromFile'):
            return transform
    return {}


def _spread(entries: list, count: int) -> list:
    """At most so many, evenly over the list, the first one among them."""
    step = max(len(entries) / count, 1)
    return [entries[int(i * step)] for i in range(min(count, len(entries)))]
