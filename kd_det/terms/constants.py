"""Published constants: of losses on necks and class logits by loss and kind of student, of LD, and of CrossKD by kind
of head.
"""
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from ..errors import ConfigError


@dataclass(frozen=True)
class Constants:
    """What a hint takes where its config gives nothing.

    Attributes:
        loss: arguments of the loss.
        levels: the first so many levels of the student's layer take part; None: all.
        of: whose constants they are, for the plan.
    """

    loss: dict[str, Any] = field(default_factory=dict)
    levels: int | None = None
    of: str = ''


def _fgd(temperature: float, alpha: float, beta: float, gamma: float, lam: float, levels: int, of: str) -> Constants:
    return Constants(dict(temperature=temperature, alpha=alpha, beta=beta, gamma=gamma, lam=lam), levels, of)


def _cwd(weight: float, standardise: bool, levels: int | None, of: str) -> Constants:
    return Constants(dict(temperature=1.0, standardise=standardise, loss_weight=weight), levels, of)


def _pkd(weight: float, of: str) -> Constants:
    return Constants(dict(loss_weight=weight), 4, of)


def _mgd(ratio: float, weight: float, levels: int, of: str) -> Constants:
    return Constants(dict(mask_ratio=ratio, loss_weight=weight), levels, of)


TWO_STAGE = 'Faster, Mask and Cascade R-CNN'

NECK: dict[str, dict[str, Constants]] = {
    'PKDLoss': {
        'RetinaNet': _pkd(10.0, 'RetinaNet'),
        'RepPoints': _pkd(10.0, 'RepPoints'),
        'two-stage': _pkd(6.0, 'Faster R-CNN'),
        'one-stage': _pkd(10.0, 'RetinaNet'),
    },
    'CWDLoss': {
        'RTMDet': _cwd(1.0, True, 3, 'RTMDet'),
        'two-stage': _cwd(10.0, False, None, 'feature pyramids'),
        'one-stage': _cwd(10.0, False, None, 'feature pyramids'),
    },
    'FGDLoss': {
        'RetinaNet': _fgd(0.5, 1e-3, 5e-4, 5e-4, 5e-6, 5, 'RetinaNet and GFL'),
        'GFL': _fgd(0.5, 1e-3, 5e-4, 5e-4, 5e-6, 5, 'RetinaNet and GFL'),
        'FCOS': _fgd(0.8, 1.6e-3, 8e-4, 8e-4, 8e-6, 5, 'FCOS'),
        'RepPoints': _fgd(0.5, 1.6e-3, 8e-4, 8e-4, 8e-6, 5, 'RepPoints'),
        'two-stage': _fgd(0.5, 5e-5, 2.5e-5, 5e-5, 5e-7, 4, TWO_STAGE),
        'one-stage': _fgd(0.5, 1e-3, 5e-4, 5e-4, 5e-6, 5, 'RetinaNet and GFL'),
    },
    'MGDLoss': {
        'two-stage': _mgd(0.45, 5e-7, 4, 'two-stage detectors'),
        'one-stage': _mgd(0.65, 2e-5, 5, 'one-stage detectors'),
    },
}
"""Loss -> kind of student -> constants of a hint on ``neck``. 'one-stage' is what every other dense head gets.

Sources: Cao et al. 2022 (PKD), Shu et al. 2021 (CWD), Yang et al. 2022 (FGD; MGD), and the configurations released with
them or, for PKD and CWD, with MMRazor and MMYOLO.
"""

PUBLISHED_CLASSES = 80  # of COCO, which the weight of LD's class term was published for

LOCALISATION: dict[str, Constants] = {
    'GFL': Constants(dict(
        main=dict(type='DistributionKLLoss', temperature=10.0, loss_weight=0.25),
        # released as 0.25 with a sum over edges that is divided by 16; all other sums over edges are divided by 4
        vlr=dict(type='DistributionKLLoss', temperature=10.0, loss_weight=0.0625),
        cls=dict(type='KnowledgeDistillationKLDivLoss', T=2, loss_weight=10.0)), of='GFL'),
}
"""Kind of student -> losses of LD by its parts, for the 80 classes of COCO. Other heads with distributions get GFL's.

Source: Zheng et al. 2022 and the configurations and the head released with it.
"""

CLASS_LOGITS: dict[str, dict[str, Constants]] = {
    'CWDLoss': {
        'GFL': _cwd(5.0, False, None, 'class logits of GFL'),
        'one-stage': _cwd(5.0, False, None, 'class logits of GFL'),
    },
}
"""Loss -> kind of student -> constants of a hint on the layer that gives a dense head's class logits (``PREDICTORS``).

Source: MMRazor's first release (GFL-R50 40.2 -> 41.9 on COCO; often quoted for the neck, where it was not made).
"""

PREDICTORS = tuple(f'bbox_head.{name}' for name in ('gfl_cls', 'retina_cls', 'atss_cls', 'conv_cls', 'rtm_cls'))
"""Paths of the last convolution of the class branch, in MMDetection's heads that have one for all levels."""

# the nearest of these in the order of a head's base classes says what the student is
KINDS: dict[str, str | None] = {
    'RetinaHead': 'RetinaNet', 'GFLHead': 'GFL', 'FCOSHead': 'FCOS', 'RepPointsHead': 'RepPoints',
    'RTMDetHead': 'RTMDet', 'ATSSHead': 'ATSS', 'StandardRoIHead': 'two-stage', 'CascadeRoIHead': 'two-stage',
    # these derive from others (VFNet's from ATSS's and FCOS's both), and nothing is published for them
    'PAAHead': 'one-stage', 'TOODHead': 'one-stage', 'VFNetHead': 'one-stage', 'SparseRoIHead': None,
    'BaseDenseHead': 'one-stage',
}


def student_kind(student: nn.Module) -> tuple[str | None, str]:
    """Kind of a student by its last head, a value of ``KINDS``, or None for any other; and the head's class."""
    head = getattr(student, 'roi_head', None) or getattr(student, 'bbox_head', None)
    if head is None:
        return None, 'no box head'
    return head_kind(head), type(head).__name__


def head_kind(head: nn.Module) -> str | None:
    return next((KINDS[base.__name__] for base in type(head).__mro__ if base.__name__ in KINDS), None)


def constants_for(key: str, cfg: dict, layer: str, student: nn.Module) -> Constants | None:
    """The constants of a hint's loss for this student; None where none are published for the loss or the layer.

    A dense student without constants of its own gets those of ``one-stage``, and the plan says so.

    Args:
        key: of the hint in the config, for messages.
        cfg: config of its loss, as given.
        layer: path of the student's layer: ``'neck'``, or one of ``PREDICTORS``; elsewhere the loss's own defaults
            hold.
        student: the detector.

    Raises:
        ConfigError: a student that is neither dense nor two-stage, and constants that the config does not give.
    """
    name = cfg.get('type')
    name = (name if isinstance(name, str) else getattr(name, '__name__', '')).rpartition('.')[2]
    rows = (NECK if layer == 'neck' else CLASS_LOGITS if layer in PREDICTORS else {}).get(name)
    if rows is None:
        return None
    kind, head = student_kind(student)
    if kind in rows and kind != 'one-stage':
        return rows[kind]
    if kind is not None:
        return _borrowed(rows['one-stage'], head)
    missing = [argument for argument in rows['one-stage'].loss if argument not in cfg]
    if missing:
        raise ConfigError(f'{key}.loss.{missing[0]}: not given, and {name} has no published constants for a student '
                          f'with {head}; give {", ".join(missing)}')
    return None


def localisation_constants(student: nn.Module) -> Constants:
    """Of LD, for a student whose head predicts distributions.

    The class loss is a mean over classes: its published weight is multiplied by C / 80 for a student of C classes, so
    that a class counts what it counts on COCO and few classes do not make the term heavy.
    """
    kind, head = student_kind(student)
    row = LOCALISATION.get(kind) or _borrowed(LOCALISATION['GFL'], head)
    cls = row.loss['cls']
    weight = cls['loss_weight'] * student.bbox_head.num_classes / PUBLISHED_CLASSES
    return replace(row, loss={**row.loss, 'cls': {**cls, 'loss_weight': weight}})


def _borrowed(row: Constants, head: str) -> Constants:
    return Constants(row.loss, row.levels, f'{row.of} (none are published for {head} alone)')


@dataclass(frozen=True)
class CrossConstants:
    """What CrossKD takes where its config gives nothing.

    Attributes:
        left: convolutions of the teacher's tower, of four, that the student's feature goes through.
        cls, bbox, score_factor: the losses; None: there is none.
        box_normaliser: what divides the box term, 'weights' or 'centerness'.
        of: whose constants they are, for the plan.
    """

    left: int
    cls: dict[str, Any]
    bbox: dict[str, Any]
    score_factor: dict[str, Any] | None
    box_normaliser: str
    of: str


def _cross(of: str, bbox: dict, left: int = 1, cls: float = 1.0, factor: float | None = None,
           box_normaliser: str = 'weights') -> CrossConstants:
    return CrossConstants(left, dict(type='ModulatedBCELoss', beta=1.0, loss_weight=cls), bbox,
                          None if factor is None else dict(type='SoftBCELoss', loss_weight=factor),
                          box_normaliser, of)


CROSS: dict[str, CrossConstants] = {
    'GFL': _cross('GFL', dict(type='DistributionKLLoss', temperature=1.0, loss_weight=4.0)),
    'RetinaNet': _cross('RetinaNet', dict(type='GIoULoss', loss_weight=1.0)),
    'ATSS': _cross('ATSS', dict(type='GIoULoss', loss_weight=1.0), factor=1.0),
    'FCOS': _cross('FCOS', dict(type='IoULoss', loss_weight=0.75), left=2, cls=0.4, box_normaliser='centerness'),
}
"""Kind of head -> constants of CrossKD. Every other dense head gets ATSS'.

Source: Wang et al. 2024, and the configurations released with it.
"""


def cross_constants(head: nn.Module) -> CrossConstants:
    """The constants of CrossKD for a head; one without its own gets those of ATSS, and the plan says so."""
    kind = head_kind(head)
    if kind in CROSS:
        return CROSS[kind]
    return replace(CROSS['ATSS'], of=f'ATSS (none are published for {type(head).__name__})')
