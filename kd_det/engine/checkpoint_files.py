"""Checkpoints on the disk: written whole, the old one kept until the new one is verified, the newest whole one found.
"""
import os
import os.path as osp
import pickle
from collections.abc import Callable
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.fileio.backends import LocalBackend
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.runner import Runner

from ..compat.checkpoint import load
from ..errors import CheckpointMismatch
from ..files import damage, write_whole

NOT_RESUMED = ('diverged.pth',)
"""Written because something went wrong; named by hand only."""


class SafeCheckpointHook(CheckpointHook):
    """MMEngine's, in another order: the new file is written whole and read back, then the pointer, then the old one
    goes.

    The disk must hold one checkpoint more than ``max_keep_ckpts``.
    """

    @classmethod
    def of(cls, hook: CheckpointHook) -> 'SafeCheckpointHook':
        """The same hook, safe."""
        found = cls.__new__(cls)
        found.__dict__.update(hook.__dict__)
        return found

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        old = []
        if self.max_keep_ckpts > 0 and not (self.keep_ckpt_ids and self.keep_ckpt_ids[-1] == step):
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                old = [self._path(self.keep_ckpt_ids.popleft())]
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(self.out_dir, self.filename_tmpl.format(step), self.file_client_args,
                               save_optimizer=self.save_optimizer, save_param_scheduler=self.save_param_scheduler,
                               meta=meta, by_epoch=self.by_epoch, backend_args=self.backend_args, **self.args)
        if not is_main_process():
            return
        _verify(self.last_ckpt)
        write_whole(osp.join(runner.work_dir, 'last_checkpoint'), self.last_ckpt)
        for path in old:
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)
        self._say_removed(runner)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend, self.file_backend = self.file_backend, _RemovesLater(self.file_backend)
        try:
            super()._save_best_checkpoint(runner, metrics)
            kept = {self.__dict__.get('best_ckpt_path'), *(self.__dict__.get('best_ckpt_path_dict') or {}).values()}
            for path in self.file_backend.removed:
                # kept: written anew under the same name
                if path not in kept and self._is_own_best(path) and backend.isfile(path):
                    backend.remove(path)
            self._say_removed(runner)
        finally:
            self.file_backend = backend

    def _is_own_best(self, path: str) -> bool:
        """The path comes out of the checkpoint that was resumed, which could name any file."""
        return osp.basename(path).startswith('best_') and \
            osp.realpath(osp.dirname(path)) == osp.realpath(self.out_dir)

    def _say_removed(self, runner: Runner) -> None:
        for hook in runner.hooks if is_main_process() else ():  # what belongs to a removed file goes too
            if hasattr(hook, 'checkpoints_removed'):
                hook.checkpoints_removed(self.backend_args)

    def _path(self, step: int) -> str:
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(step))


class _RemovesLater:
    """A file backend that notes which file it is told to remove, and removes no folder."""

    def __init__(self, backend: Any) -> None:
        self.backend, self.removed = backend, []

    def remove(self, path: str) -> None:
        self.removed.append(path)

    def rmtree(self, path: str) -> None:
        """A best checkpoint is a file here; a folder of this name is not the run's."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)


def _verify(path: str) -> None:
    if '://' not in path and (found := damage(path)):
        raise OSError(f'{path}: written, and what the disk gives back is not it: {found}. The checkpoint before it is '
                      'kept')


def _put(self: LocalBackend, obj: bytes, filepath: str) -> None:
    write_whole(filepath, obj)


def _dump(self: Config, file: str | os.PathLike | None = None, _dump: Callable = Config.dump) -> str | None:
    if file is not None and str(file).endswith('.py'):
        write_whole(file, self.pretty_text)
        return None
    return _dump(self, file)


def write_files_whole() -> None:
    """What MMEngine puts on a local disk appears whole, checkpoints and configs alike; before a runner is built."""
    LocalBackend.put, Config.dump = _put, _dump


def keep_until_verified(runner: Runner) -> None:
    """Give a runner's checkpoint hooks the safe order."""
    runner._hooks[:] = [SafeCheckpointHook.of(hook) if type(hook) is CheckpointHook else hook for hook in runner._hooks]


def latest_whole(work_dir: str) -> str | None:
    """The newest checkpoint of a work directory that can be read and holds the optimizer's state.

    The one that ``last_checkpoint`` names counts wherever it lies. Damaged files are skipped, each with a message.

    Returns:
        str | None: None where there is no checkpoint at all.

    Raises:
        CheckpointMismatch: there are checkpoints, and none of them is whole.
    """
    candidates = set()
    if osp.isdir(work_dir):
        candidates = {osp.join(work_dir, name) for name in os.listdir(work_dir)
                      if name.endswith('.pth') and not name.endswith('_peer.pth') and not name.startswith('best_')
                      and name not in NOT_RESUMED}
        pointer = osp.join(work_dir, 'last_checkpoint')
        if osp.isfile(pointer):
            with open(pointer, encoding='utf-8', errors='replace') as file:
                named = file.read().strip()
            if osp.isfile(named):
                candidates.add(named)
            else:
                print_log(f'{pointer} names {named!r}, which is not there', 'current', level=30)
    skipped = []
    for path in sorted(candidates, key=lambda p: (osp.getmtime(p), p), reverse=True):
        if found := damage(path):
            print_log(f'{path} is skipped: {found}', 'current', level=30)
            skipped.append(f'{path}: {found}')
            continue
        try:
            checkpoint = load(path)
        except (RuntimeError, pickle.UnpicklingError) as error:
            skipped.append(f'{path}: {error}'.splitlines()[0])
            continue
        if isinstance(checkpoint, dict) and 'optimizer' in checkpoint and 'meta' in checkpoint:
            return path
        skipped.append(f'{path}: it has no optimizer state')
    if skipped:
        raise CheckpointMismatch('--resume: no checkpoint to resume from; ' + '; '.join(skipped))
    return None
