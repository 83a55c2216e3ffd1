"""The files of a data folder by kind, and which picture an annotation means."""
import os
import os.path as osp
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from pathlib import PurePosixPath

from ..datasets.image_files import decoded_size, image_damage
from ..errors import DataError

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff')


class Files:
    """Files below a folder, by their names relative to it, with forward slashes; hidden ones are left out.

    Args:
        root: the folder.

    Raises:
        DataError: it does not exist, holds nothing, or it or a folder in it cannot be read.
    """

    def __init__(self, root: str) -> None:
        if not osp.isdir(root):
            raise DataError(f'--data: {root!r} is a file; the folder of the images is expected' if osp.exists(root) else
                            f'--data: the folder {root!r} does not exist')
        self.root, self.all, seen = root, [], set()
        for folder, folders, names in os.walk(root, followlinks=True, onerror=_unreadable):
            real = osp.realpath(folder)
            if real in seen:  # a link to a folder above
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith(('.', '__')))
            relative = osp.relpath(folder, root)
            self.all += [PurePosixPath(relative, name).as_posix() for name in sorted(names) if not name.startswith('.')]
        if not self.all:
            raise DataError(f'--data: the folder {root!r} is empty')

    def of(self, *endings: str) -> list[str]:
        """Names that end so, in any case."""
        return [name for name in self.all if name.lower().endswith(endings)]

    @cached_property
    def images(self) -> list[str]:
        return self.of(*IMAGES)

    def path(self, name: str) -> str:
        return osp.join(self.root, name)

    @cached_property
    def _by_stem(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda name: PurePosixPath(name).stem)

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        return _grouped(self.images, lambda name: PurePosixPath(name).name)

    @cached_property
    def _names(self) -> set[str]:
        return set(self.images)

    def image_called(self, file_name: str, near: str, folders: Sequence[str] = ()) -> str | None:
        """The picture that ``file_name`` means in the annotation file ``near``.

        Looked for in ``folders`` and beside the file, then anywhere by its last part.
        """
        here = str(PurePosixPath(near).parent)
        for folder in (*folders, here, '.'):
            candidate = osp.normpath(osp.join(folder, file_name)).replace(os.sep, '/')
            if candidate in self._names:
                return candidate
        return nearest(self._by_name.get(PurePosixPath(file_name.replace('\\', '/')).name, []), near)

    def image_of_stem(self, near: str) -> str | None:
        """The picture of the same stem as the annotation file ``near``."""
        return nearest(self._by_stem.get(PurePosixPath(near).stem, []), near)


def _unreadable(error: OSError) -> None:
    """A folder that is left out silently would be a smaller data set."""
    raise DataError(f'--data: the folder {error.filename!r} cannot be read ({error.strerror}); mend its permissions'
                    ) from error


def _grouped(names: Sequence[str], key) -> dict[str, list[str]]:
    found = defaultdict(list)
    for name in names:
        found[key(name)].append(name)
    return found


def nearest(candidates: Sequence[str], near: str) -> str | None:
    """The candidate that shares most folders with ``near``, ``labels`` and ``Annotations`` counting as images' folders.
    """
    mine = [_kind(part) for part in PurePosixPath(near).parent.parts]

    def shared(name: str) -> tuple[int, int]:
        theirs = [_kind(part) for part in PurePosixPath(name).parent.parts]
        return sum(part in theirs for part in mine), -len(theirs)
    return max(candidates, key=shared, default=None)


def _kind(folder: str) -> str:
    return 'images' if folder.lower() in ('labels', 'annotations', 'jpegimages', 'images') else folder


def lines_of(path: str) -> list[str]:
    """The lines of a text file that are not empty, without space around them.

    Raises:
        DataError: it cannot be read, or is not UTF-8.
    """
    try:
        with open(path, encoding='utf-8') as file:
            return [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f'--data: {path!r} cannot be read as UTF-8 text ({error}); save it as UTF-8, or take it away'
                        ) from error


def image_size(path: str) -> tuple[int, int]:
    """(width, height) as training reads a file: turned upright as its EXIF data says.

    Raises:
        DataError: no image that can be read.
    """
    damage = image_damage(path)
    size = None if damage else decoded_size(path)
    if size is None:
        raise DataError(f'--data: the image {path!r} cannot be used: {damage or "it cannot be decoded"}')
    return size
