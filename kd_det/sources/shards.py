"""Answers of a teacher on disk, in shards: files that several processes and machines write, and any number read."""
import json
import os
import os.path as osp
import time
import uuid
import zipfile
import zlib
from collections import OrderedDict
from typing import Any

import numpy as np
from mmengine.logging import print_log

from ..errors import ConfigError
from ..files import write_whole

FORMAT = 1
SUFFIX = '.npz'
HEADER = 'header'
SHARD_BYTES = 2**27
RESCAN = 60.0  # seconds after which an answer that is missing is looked for in shards that others wrote meanwhile
OPEN_FILES = 16
ALIGNMENT = 8  # bytes
DAMAGED = (zipfile.BadZipFile, zlib.error, OSError, ValueError, KeyError, EOFError)

Answers = dict[str, np.ndarray]


class Shards:
    """A folder of shards: view -> the teacher's answers for it, arrays by name.

    A shard is a file ``<random name>.npz`` of NumPy's, written whole (:func:`kd_det.files.write_whole`), so that a
    killed writer leaves none or a whole one, and two writers never touch the same file: folders are merged by copying
    files. It holds a JSON header (whose answers, how each entry is laid out) and for each view one array of bytes.
    Reading executes nothing (``allow_pickle=False``); each array has a CRC-32 that is checked as it is read. A shard
    that cannot be read, and an entry whose bytes are not those that were written, count as missing, with a warning.

    Args:
        folder (str): where the shards are; made when the first one is written.
        max_bytes (int): the folder does not grow beyond. Each process counts what it wrote and what it has seen of
            others, so that together they may pass the bound by a shard each.
        key (str): for messages.
    """

    def __init__(self, folder: str, max_bytes: int, key: str) -> None:
        self.folder, self.max_bytes, self.key = folder, max_bytes, key
        self.full: str | None = None
        """Why nothing is written any more."""
        self.identity: dict[str, str] | None = None
        self.shapes: dict[str, Any] = {}
        """What the shards say of the layers in them."""
        self._others: dict[str, dict] = {}  # shard -> the identity that it states
        self._places: dict[str, list[tuple[str, tuple]]] = {}  # view -> (shard, layout)
        self._seen: set[str] = set()
        self._pending: dict[str, tuple[tuple, bytearray]] = {}
        self._pending_bytes = self._last_bytes = self.bytes = 0
        self._open: OrderedDict[str, Any] = OrderedDict()
        self._scanned = -RESCAN

    def __len__(self) -> int:
        """Views that are there."""
        return len(self._places.keys() | self._pending.keys())

    @property
    def bytes_per_view(self) -> float:
        """The mean of what is there, or else the size of the last that had no place."""
        return (self.bytes + self._pending_bytes) / len(self) if len(self) else float(self._last_bytes)

    def __getstate__(self) -> dict:
        return {**vars(self), '_open': OrderedDict()}

    # -- what is there ----------------------------------------------------------------------------------------------
    def scan(self) -> None:
        """Look for shards that were not there before.

        Raises:
            ConfigError: one holds answers of something else.
        """
        self._scanned = time.monotonic()
        found = os.listdir(self.folder) if osp.isdir(self.folder) else []
        names = sorted(name for name in found if name.endswith(SUFFIX))
        for name in names:
            if name not in self._seen:
                self._seen.add(name)
                self._index(name)
        if self.identity is not None:
            self._check_identities()

    def _index(self, name: str) -> None:
        path = osp.join(self.folder, name)
        try:
            with np.load(path, allow_pickle=False) as file:
                header = json.loads(bytes(file[HEADER]))
                if header['format'] != FORMAT:
                    raise ValueError(f'it is of format {header["format"]}, {FORMAT} is expected')
                layouts = [tuple(tuple((tuple(v) if isinstance(v, list) else v) for v in row) for row in layout)
                           for layout in header['layouts']]
                entries = {view: layouts[place] for view, place in header['entries'].items() if view in file.files}
                self._others[name] = header['identity']
            self.bytes += osp.getsize(path)
        except DAMAGED as error:
            print_log(f'{self.key}: {path} is no whole shard and is left out ({error})', 'current', level=30)
            return
        self.shapes.update(header['shapes'])
        for view, layout in entries.items():
            known = self._places.setdefault(view, [])
            if not {row[0] for row in layout} <= {row[0] for _, other in known for row in other}:
                known.append((name, layout))

    def open(self, identity: dict[str, str]) -> None:
        """Say whose answers are wanted.

        Raises:
            ConfigError: the folder holds answers of something else; the message says what differs.
        """
        self.identity = identity
        self.scan()

    def identities(self) -> list[dict]:
        """The different ones that the shards state."""
        found: list[dict] = []
        for identity in self._others.values():
            if identity not in found:
                found.append(identity)
        return found

    def _check_identities(self) -> None:
        for name, other in self._others.items():
            differs = [what for what in self.identity if other.get(what) != self.identity[what]]
            if differs:
                listed = '; '.join(f'{what}: {other.get(what)} there, {self.identity[what]} here' for what in differs)
                raise ConfigError(f'{self.key}: {osp.join(self.folder, name)} holds answers of another teacher '
                                  f'({listed}); give another folder, or remove this one')

    # -- reading ----------------------------------------------------------------------------------------------------
    def read(self, view: str) -> Answers:
        """Everything that is there for a view; an empty dict if nothing is."""
        if view not in self._places and view not in self._pending and time.monotonic() - self._scanned > RESCAN:
            self.scan()
        found: Answers = {}
        for name, layout in self._places.get(view, ()):
            try:
                found.update(_laid_out(self._file(name)[view], layout))
            except DAMAGED as error:
                print_log(f'{self.key}: an entry of {osp.join(self.folder, name)} is damaged and counts as missing '
                          f'({error})', 'current', level=30)
                self._places[view] = [place for place in self._places[view] if place[0] != name]
        if view in self._pending:
            layout, content = self._pending[view]
            found.update(_laid_out(np.frombuffer(content, np.uint8), layout))
        return found

    def _file(self, name: str) -> Any:
        if name not in self._open:
            self._open[name] = np.load(osp.join(self.folder, name), allow_pickle=False)
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return self._open[name]

    # -- writing ----------------------------------------------------------------------------------------------------
    def add(self, view: str, answers: Answers) -> bool:
        """Keep the answers for a view; they reach the disk when a shard is full, or by :meth:`flush`.

        Returns:
            Whether they are kept; not where the bound is reached.
        """
        layout, content = _packed(answers)
        self._last_bytes = len(content)
        if self.full is None and self.bytes + self._pending_bytes + len(content) > self.max_bytes:
            self.flush()
            self._stop(f'{self.folder} holds {in_words(self.bytes)} and may hold {in_words(self.max_bytes)} (max_disk)')
        if self.full is not None:
            return False
        self._pending[view] = layout, content
        self._pending_bytes += len(content)
        if self._pending_bytes >= SHARD_BYTES:
            self.flush()
        return True

    def flush(self) -> None:
        """Write what is kept in memory as one more shard."""
        if not self._pending:
            return
        layouts = list(dict.fromkeys(layout for layout, _ in self._pending.values()))
        number = {layout: i for i, layout in enumerate(layouts)}
        header = dict(format=FORMAT, identity=self.identity, shapes=self.shapes, layouts=layouts,
                      entries={view: number[layout] for view, (layout, _) in self._pending.items()})
        arrays = {HEADER: np.frombuffer(json.dumps(header).encode(), np.uint8),
                  **{view: np.frombuffer(content, np.uint8) for view, (_, content) in self._pending.items()}}
        name = uuid.uuid4().hex + SUFFIX
        try:
            write_whole(osp.join(self.folder, name), lambda file: np.savez(file, **arrays))
        except OSError as error:
            self.discard()
            self._stop(str(error))
            return
        self._seen.add(name)
        self.bytes += osp.getsize(osp.join(self.folder, name))
        for view, (layout, _) in self._pending.items():
            self._places.setdefault(view, []).append((name, layout))
        self.discard()

    def discard(self) -> None:
        """Forget what is kept in memory."""
        self._pending.clear()
        self._pending_bytes = 0

    def _stop(self, why: str) -> None:
        self.full = why
        print_log(f'{self.key}: nothing more is recorded: {why}. What is missing is asked of the teacher', 'current',
                  level=30)


def in_words(size: float) -> str:
    """A number of bytes, for people."""
    for unit in ('B', 'KiB', 'MiB', 'GiB'):
        if size < 1024:
            return f'{size:.3g} {unit}'
        size /= 1024
    return f'{size:.3g} TiB'


def _packed(answers: Answers) -> tuple[tuple, bytearray]:
    """Layout, rows of (name, dtype, shape, offset), and the bytes; arrays that are one object are stored once."""
    rows, parts, where, end = [], [], {}, 0
    for name, array in answers.items():
        if id(array) not in where:
            where[id(array)] = end
            parts.append(np.ascontiguousarray(array).tobytes())
            parts.append(bytes(-len(parts[-1]) % ALIGNMENT))
            end += len(parts[-2]) + len(parts[-1])
        rows.append((name, array.dtype.str, tuple(array.shape), where[id(array)]))
    return tuple(rows), bytearray(b''.join(parts))


def _laid_out(content: np.ndarray, layout: tuple) -> Answers:
    """The arrays in the bytes, as views of them."""
    found = {}
    for name, kind, shape, offset in layout:
        count = int(np.prod(shape, dtype=np.int64))
        found[name] = np.frombuffer(content, np.dtype(kind), count, offset).reshape(shape)
    return found
