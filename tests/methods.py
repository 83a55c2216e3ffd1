"""Every method that ships, on detectors that take some ten milliseconds a step."""
import copy
from collections.abc import Callable
from pathlib import Path

from conftest import build, faster_rcnn_cfg, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict


class Teachers:
    """Wider detectors of each kind with their checkpoints, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.made = folder, {}

    def of(self, kind: str, seed: int = 7) -> dict:
        """``dict(config, checkpoint)``."""
        if (kind, seed) not in self.made:
            cfg = faster_rcnn_cfg(width=16, channels=24) if kind == 'faster_rcnn' else dense_cfg(kind, width=16)
            path = save_checkpoint(build(copy.deepcopy(cfg), seed), self.folder / f'{kind}_{seed}.pth')
            self.made[kind, seed] = cfg.to_dict(), path
        cfg, path = self.made[kind, seed]
        return dict(config=copy.deepcopy(cfg), checkpoint=path)


def _taught(kind: str, own: str, **added) -> ConfigDict:
    cfg = ConfigDict(copy.deepcopy((faster_rcnn_cfg() if kind == 'faster_rcnn' else dense_cfg(kind)).to_dict()))
    cfg.update(student_type=cfg.type, type=own, **added)
    return cfg


def _hint(**loss) -> Callable[[Teachers], ConfigDict]:
    return lambda teachers: _taught('faster_rcnn', 'Distiller', teacher=teachers.of('faster_rcnn'), terms=[
        dict(type='Hint', layer='neck', loss=dict(loss))])


def _lad(kind: str, own: str = 'LADDistiller', **added) -> Callable[[Teachers], ConfigDict]:
    def make(teachers: Teachers) -> ConfigDict:
        teacher = teachers.of(kind)
        if kind == 'paa':
            teacher['cfg_options'] = {'bbox_head.type': 'BatchedPAAHead'}
        return _taught(kind, own, teacher=teacher, **copy.deepcopy(added))
    return make


def _dense(kind: str, *terms: dict) -> Callable[[Teachers], ConfigDict]:
    return lambda teachers: _taught(kind, 'Distiller', teacher=teachers.of(kind), terms=copy.deepcopy(list(terms)))


def _two_teachers(teachers: Teachers) -> ConfigDict:
    return _taught('faster_rcnn', 'FasterRCNNDistiller', sources=dict(
        a=teachers.of('faster_rcnn'), b=teachers.of('faster_rcnn', 8),
        both=dict(type='Ensemble', members=dict(a=dict(weight=2.0), b={}))),
        rpn_distill=dict(source='both'), rcnn_distill=dict(source='both'))


def _junior(teachers: Teachers) -> ConfigDict:
    return _taught('faster_rcnn', 'FasterRCNNDistiller', rpn_distill=dict(source=['a', 'b']),
                   sources=dict(a=teachers.of('faster_rcnn'), b=teachers.of('faster_rcnn', 8)),
                   rcnn_distill=dict(source=['a', 'b'], undecided=0.9))


def _confident(teachers: Teachers) -> ConfigDict:
    return _taught('retinanet', 'Distiller', terms=[dict(type='SoftLabel', source='both', anneal=True)], sources=dict(
        a=teachers.of('retinanet'), b=teachers.of('retinanet', 8),
        both=dict(type='Ensemble', members=['a', 'b'], confidence=0.1)))


def _mapped(teachers: Teachers) -> ConfigDict:
    cfg = dense_cfg('gfl', channels=8)
    cfg.update(student_type=cfg.type, type='Distiller', teacher=teachers.of('gfl'), terms=[dict(type='CrossHead')])
    return cfg


METHODS: dict[str, Callable[[Teachers], ConfigDict]] = {
    'faster_rcnn': lambda teachers: _taught(
        'faster_rcnn', 'FasterRCNNDistiller', teacher=teachers.of('faster_rcnn'), rpn_distill=dict(),
        rcnn_distill=dict(), hints=[dict(layer='neck')]),
    'two teachers': _two_teachers,
    'junior': _junior,
    'two confident teachers, retinanet': _confident,
    'class-balanced': lambda teachers: _taught(
        'faster_rcnn', 'Distiller', teacher=teachers.of('faster_rcnn'), terms=[dict(type='ClassBalancedDistillation')]),
    'pkd': _hint(type='PKDLoss'),
    'cwd': _hint(type='CWDLoss'),
    'fgd': _hint(type='FGDLoss', alpha=5e-5, beta=2.5e-5, gamma=5e-5, lam=5e-7),
    'mgd': _hint(type='MGDLoss', mask_ratio=0.45, loss_weight=5e-7),
    'lad': _lad('paa'),
    'solad': _lad('paa', soft_label=dict()),
    'lad, rtmdet': _lad('rtmdet'),
    'soft label': _lad('paa', 'SoftLabelDistiller', soft_label=dict()),
    'soft label, retinanet': _lad('retinanet', 'Distiller', terms=[dict(type='SoftLabel')]),
    'bckd': _dense('gfl', dict(type='BCKD')),
    'ld': _dense('gfl', dict(type='LD')),
    'crosskd': _dense('gfl', dict(type='CrossHead')),
    'crosskd, mapped': _mapped,
    'crosskd, retinanet, and bckd': _dense('retinanet', dict(type='CrossHead'), dict(type='BCKD', name='own')),
    'pseudo-label': lambda teachers: _taught('gfl', 'Distiller', teacher=teachers.of('faster_rcnn'), terms=[
        dict(type='PseudoLabel', score_thr=0.05)]),
    'colad': lambda teachers: _taught('paa', 'CoLAD', peer=dict(config=dense_cfg('paa', width=16).to_dict())),
    'colad, rtmdet': lambda teachers: _taught('rtmdet', 'CoLAD',
                                              peer=dict(config=dense_cfg('rtmdet', width=16).to_dict())),
}
"""Name -> a function from teachers to the config of a student that the method teaches."""
IMPLIED = {'FasterRCNNDistiller': {'RPNDistillation', 'RCNNDistillation'}, 'LADDistiller': {'LabelAssignment'},
           'SoftLabelDistiller': {'SoftLabel'}, 'CoLAD': {'CoLearning'}}
"""Terms that a preset makes of keys of its own."""
