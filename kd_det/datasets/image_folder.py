"""Image files in a folder: all of them, or those that an annotation file lists."""
import json
import os
import os.path as osp

from ..errors import DataError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')


def images_in(key: str, folder: str) -> list[str]:
    """Image files below ``folder``, relative to it, sorted.

    Args:
        key: the option or config key that names the folder, for messages.

    Raises:
        DataError: no such folder, or no image in it.
    """
    if not osp.isdir(folder):
        raise DataError(f'{key}: the folder {folder!r} does not exist')
    found = [osp.relpath(osp.join(root, name), folder) for root, _, names in os.walk(folder) for name in names
             if name.lower().endswith(SUFFIXES)]
    if not found:
        raise DataError(f'{key}: no image ({", ".join(SUFFIXES)}) in {folder!r}')
    return sorted(found)


def listed_images(key: str, ann_file: str, folder_key: str, folder: str) -> list[str]:
    """The images of a COCO file, relative to ``folder``, in the file's order; its annotations are not read.

    Args:
        key, folder_key: the options or config keys that name the two, for messages.

    Raises:
        DataError: no COCO file, no image in it, images that are not there.
    """
    try:
        with open(ann_file, encoding='utf-8') as file:
            names = [image['file_name'] for image in json.load(file)['images']]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f'{key}: {ann_file!r} is no COCO file with a list of images ({error!r}); leave it out to take '
                        'every image of the folder') from error
    if not names:
        raise DataError(f'{key}: {ann_file!r} lists no images')
    missing = [name for name in names if not osp.isfile(osp.join(folder, name))]
    if missing:
        raise DataError(f'{folder_key}: {len(missing)} of {len(names)} images of {ann_file!r} are not in {folder!r}, '
                        f'the first one is {missing[0]!r}')
    return names
