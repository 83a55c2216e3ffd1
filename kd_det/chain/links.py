"""The links of a chain of teachers: which run comes after which, as configs."""
import copy
import os.path as osp
from collections.abc import Sequence
from dataclasses import dataclass

from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from ..config import distilled
from ..errors import ConfigError
from ..plain import set_teacher
from ..weights import digest, read_state_dict


@dataclass
class Link:
    """One run of a chain.

    Attributes:
        number: from 1.
        cfg: resolved; ``work_dir`` is the link's own. ``chain`` in it says which link it is.
    """

    number: int
    cfg: Config

    @property
    def work_dir(self) -> str:
        return self.cfg.work_dir

    def begins_with(self, checkpoint: str) -> None:
        """The run starts from a student's weights, with an optimizer and a schedule of its own."""
        self.cfg.load_from, self.cfg.resume = checkpoint, False
        self.cfg.chain.starts_from = digest(read_state_dict(checkpoint)[0])

    def build(self) -> nn.Module:
        """The detector that the run will train, its weights unread: whatever its config cannot mean is an error here.
        """
        with DefaultScope.overwrite_default_scope(self.cfg.get('default_scope', 'mmdet')):
            return MODELS.build(copy.deepcopy(self.cfg.model))


def links_of(cfg: Config, teachers: Sequence[tuple[str, str]] = (), count: int | None = None) -> list[Link]:
    """The runs of a chain, in order; nothing is written.

    The first is the config's own run under the first teacher. Each of the others is the same, under its teacher, from
    the student's weights at the end of the one before: a fresh optimizer, a fresh schedule, and nothing inherited from
    the teacher, which would undo what the student has learned (Cao et al. 2023, MTPD: teachers from the nearest to the
    farthest).

    Args:
        cfg (Config): resolved, with a ``work_dir``, in which each link gets a folder ``link_<number>``.
        teachers: (config, checkpoint) of each link, two or more.
        count: instead of teachers, so many runs of the config as it is: of a plain config the control of a chain, the
            student trained as long.

    Raises:
        ConfigError: the config has no teacher, one link alone, both or none of the arguments, a checkpoint that is not
            there.
    """
    if bool(teachers) == (count is not None):
        raise ConfigError('--chain and --links: give one of them; a chain has as many links as teachers')
    if teachers and ('teacher' not in cfg.model or distilled(cfg.model) is None):
        raise ConfigError(f'--chain: model.type {cfg.model.get("type")!r} has no teacher; give a distil config, whose '
                          'terms all teachers of the chain share')
    number = len(teachers) or count
    if number < 2:
        raise ConfigError('--chain: one teacher is no chain; give two or more, or --teacher CONFIG CHECKPOINT'
                          if teachers else f'--links: found {count}; 2 or more are expected')
    for config, checkpoint in teachers:
        if '://' not in checkpoint and not osp.isfile(checkpoint):
            raise ConfigError(f'--chain {config} {checkpoint}: there is no file {checkpoint!r}; give the file or URL '
                              'of a trained teacher')
    return [_link(cfg, i, number, teachers[i - 1] if teachers else None) for i in range(1, number + 1)]


def _link(cfg: Config, number: int, of: int, teacher: tuple[str, str] | None) -> Link:
    stem = osp.splitext(osp.basename(cfg.filename or 'chain.py'))[0]
    own = Config(copy.deepcopy(cfg._cfg_dict.to_dict()), cfg_text=cfg.text or '#', filename=f'{stem}_link_{number}.py')
    own.work_dir = osp.join(cfg.work_dir, f'link_{number}')
    own.chain = dict(link=number, of=of)
    if teacher is not None:
        set_teacher(own, *teacher)
    if number > 1:
        for source in (own.model.get('teacher'), *(own.model.get('sources') or {}).values()):
            if isinstance(source, dict):
                source.pop('inherit', None)
    return Link(number, own)
