"""A stage: one command that a user could give alone, and how far it has come."""
import os
import os.path as osp
import shutil
from dataclasses import dataclass, field
from functools import cached_property

from mmengine.config import Config

from ..config import load_config
from ..engine.checkpoint_files import latest_whole
from ..errors import CheckpointMismatch, ConfigError
from ..study.finished import run_config
from ..study.identity import config_hash, differing_keys

BEGIN, RESUME, DONE, REPLACE = 'begins', 'goes on', 'done', 'begins anew'


@dataclass
class Training:
    """``kd-det train CONFIG --work-dir FOLDER``.

    Attributes:
        name: of the stage.
        what: for the plan.
        config: file.
        work_dir: folder.
        epochs, steps: of the training; steps of one epoch.
        evaluations: how often it is validated.
        seconds: estimated; None: not measured.
        resumed: whether it goes on, so that its time says nothing of its pace.
        why: it begins anew, where it does.
    """

    name: str
    what: str
    config: str
    work_dir: str
    epochs: int
    steps: int
    evaluations: int
    seconds: float | None = None
    resumed: bool = False
    why: str = ''

    @property
    def command(self) -> list[str]:
        return ['train', self.config, '--work-dir', self.work_dir]

    @property
    def result(self) -> str:
        return osp.join(self.work_dir, f'epoch_{self.epochs}.pth')

    @cached_property
    def _cfg(self) -> Config:
        return load_config(self.config)

    def state(self, overwrite: bool = False) -> str:
        """How far it has come.

        Raises:
            ConfigError: its folder holds a run of another config, and ``overwrite`` is not given.
        """
        there = run_config(self.work_dir)
        if there is None:
            return BEGIN
        if config_hash(there) != config_hash(self._cfg):
            keys = ', '.join(differing_keys(there, self._cfg)[:6])
            if overwrite:
                self.why = f'its run differs in {keys}'
                return REPLACE
            raise ConfigError(f'{self.work_dir} holds a run of another config than {self.config} (differs in {keys}); '
                              '--overwrite replaces it, another --out leaves it')
        try:
            last = latest_whole(self.work_dir)
        except CheckpointMismatch:  # files, and none of them whole
            return BEGIN
        if last is None:
            return BEGIN
        return DONE if osp.realpath(last) == osp.realpath(self.result) else RESUME

    def arguments(self, state: str) -> list[str]:
        """The command's words; a run that is replaced is removed first."""
        if state == REPLACE:
            shutil.rmtree(self.work_dir)
        return [*self.command, *(['--resume'] if state == RESUME else [])]


@dataclass
class Making:
    """A command that makes files of others.

    Attributes:
        command: its words.
        result: the file that is there when it is done; a folder: a checkpoint in it.
        inputs: files that it is made of; it is made again when one of them is newer.
    """

    name: str
    what: str
    command: list[str]
    result: str
    inputs: list[str] = field(default_factory=list)
    seconds: float | None = None
    config: str | None = None
    why: str = ''

    def state(self, overwrite: bool = False) -> str:
        made = self._made()
        if made is None:
            return BEGIN
        newer = [path for path in self.inputs if osp.isfile(path) and osp.getmtime(path) > made]
        if not newer:
            return DONE
        if not overwrite:
            raise ConfigError(f'{self.result} was made before {newer[0]}; --overwrite makes it anew, or remove it')
        self.why = f'{newer[0]} is newer'
        return REPLACE

    def _made(self) -> float | None:
        """When; None: it is not there."""
        paths = [self.result]
        if osp.isdir(self.result):
            paths = [osp.join(self.result, name) for name in os.listdir(self.result) if name.endswith('.pth')]
        times = [osp.getmtime(path) for path in paths if osp.isfile(path)]
        return max(times) if times else None

    def arguments(self, state: str) -> list[str]:
        return [*self.command, *(['--overwrite'] if state == REPLACE and self.command[0] == 'export' else [])]


Stage = Training | Making
