"""The methods that ``kd-det distill`` knows by name, and which of them suits a pair."""
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

from ..build import build
from ..errors import AssignmentMismatch, ConfigError
from ..plain import student_model


@dataclass(frozen=True)
class Method:
    """A method.

    Attributes:
        what: what the student learns.
        adds: (student's model, teacher's model) -> what the distil config adds to ``model``, without the teacher.
        teacher: (teacher's model) -> what it adds to ``model.teacher``.
    """

    what: str
    adds: Callable[[dict, dict], dict[str, Any]]
    teacher: Callable[[dict], dict[str, Any]] = lambda teacher: {}


def _hint(loss: str) -> Callable[[dict, dict], dict[str, Any]]:
    def adds(student: dict, teacher: dict) -> dict[str, Any]:
        term: dict[str, Any] = dict(type='Hint', layer='neck', loss=dict(type=loss))
        if _channels(student) is not None and _channels(student) == _channels(teacher):
            term['adapter'] = None  # features of equally many channels are compared as they are, as published
        return dict(type='Distiller', terms=[term])
    return adds


def _term(kind: str) -> Callable[[dict, dict], dict[str, Any]]:
    return lambda student, teacher: dict(type='Distiller', terms=[dict(type=kind)])


def _channels(model: dict) -> int | None:
    necks = model.get('neck')
    last = necks[-1] if isinstance(necks, (list, tuple)) and necks else necks
    return last.get('out_channels') if isinstance(last, dict) else None


def _batched(teacher: dict) -> dict[str, Any]:
    """All mixtures of a batch are fitted at once."""
    head = teacher.get('bbox_head')
    return dict(cfg_options={'model.bbox_head.type': 'BatchedPAAHead'}) if isinstance(head, dict) \
        and head.get('type') == 'PAAHead' else {}


METHODS: dict[str, Method] = {
    'chen': Method('soft targets, bounded regression and hints in both stages (Chen et al. 2017)',
                   lambda student, teacher: dict(type='FasterRCNNDistiller', rpn_distill={}, rcnn_distill={},
                                                 hints=[dict(layer='neck')])),
    'lad': Method('which priors serve which object (LAD)', lambda student, teacher: dict(type='LADDistiller'),
                  _batched),
    'solad': Method('assignment and soft labels (SoLAD)',
                    lambda student, teacher: dict(type='LADDistiller', soft_label={}), _batched),
    'pkd': Method('neck features up to scale and offset (PKD)', _hint('PKDLoss')),
    'cwd': Method('where each channel of the neck looks (CWD)', _hint('CWDLoss')),
    'fgd': Method('objects and background of the neck apart (FGD)', _hint('FGDLoss')),
    'mgd': Method('the teacher\'s neck from masked features (MGD)', _hint('MGDLoss')),
    'crosskd': Method('the teacher\'s words on the student\'s features in its head (CrossKD)', _term('CrossHead')),
    'ld': Method('the edges of boxes as distributions (LD)', _term('LD')),
    'bckd': Method('classes as binary problems, and boxes by their overlap (BCKD)', _term('BCKD')),
    'pseudo-label': Method('the teacher\'s boxes as objects of a dense student', _term('PseudoLabel')),
    'hint': Method('neck features through an adapter (HintLoss)',
                   lambda student, teacher: dict(type='Distiller', terms=[dict(type='Hint', layer='neck')])),
    'soft-label': Method('the teacher\'s dense scores and boxes beside the ground truth',
                         lambda student, teacher: dict(type='SoftLabelDistiller', soft_label={}, ground_truth=True)),
    'backbone-hint': Method('backbone features through an adapter (HintLoss)',
                            lambda student, teacher: dict(
                                type='Distiller', terms=[dict(type='Hint', layer='backbone')])),
}
"""Name -> method, a line each."""
PREFERRED = ('lad', 'crosskd', 'pkd', 'chen', 'soft-label', 'backbone-hint')
"""Without ``--method`` the first of these that suits: LAD for heads that assign by their predictions, CrossKD for other
dense heads whose towers are known, PKD for every other pair with necks. On the pairs measured here CrossKD is ahead of
PKD under GFL (far ahead on vehicles, level on BCCD), and PKD among the best with two stages, where Chen et al. gained
less than half of it; see configs/which_method/README.md.
"""


def distil_model(name: str, student: dict, teacher: dict, source: dict) -> dict[str, Any]:
    """What the distil config of a method adds to the student's ``model``.

    Args:
        student, teacher: their plain detectors' configs.
        source: ``config`` and ``checkpoint`` of the teacher.
    """
    method = METHODS[name]
    added = method.adds(student, teacher)
    return {'type': added.pop('type'), 'teacher': {**source, **method.teacher(teacher)}, **added}


def why_not(name: str, student: dict, teacher: dict, scale: int = 1) -> str | None:
    """Why a method does not suit a pair, in the words of the build that refuses it; None: it suits."""
    source = dict(config=dict(model=ConfigDict(teacher).to_dict()))
    added = distil_model(name, student, teacher, {**source, 'scale_factor': scale} if scale > 1 else source)
    model = ConfigDict(student).to_dict()
    model = ConfigDict({**model, **added, 'student_type': model['type']})
    try:
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            build('model', model, MODELS)
    except (ConfigError, AssignmentMismatch) as error:
        return ' '.join(str(error).split())
    return None


def chosen(name: str | None, student: dict, teacher: dict, scale: int = 1) -> str:
    """The method asked for, or the first of :data:`PREFERRED` that suits.

    Args:
        student, teacher: the ``model`` of their configs.
        scale: sides of the teacher's images over the student's.

    Raises:
        ConfigError: no such method; it does not suit the pair (those that do are listed); none does.
    """
    student, teacher = student_model(student), student_model(teacher)
    if name is not None and name not in METHODS:
        raise ConfigError(f'--method {name}: unknown; known are {", ".join(METHODS)}')
    reasons = {}
    for one in (name,) if name else PREFERRED:
        reasons[one] = why_not(one, student, teacher, scale)
        if reasons[one] is None:
            return one
    if name is None:
        raise ConfigError('--teacher, --student: no method suits this pair: '
                          + '; '.join(f'{one}: {reason}' for one, reason in reasons.items()))
    others = [one for one in METHODS if one != name and why_not(one, student, teacher, scale) is None]
    raise ConfigError(f'--method {name} does not suit this pair: {reasons[name]}. '
                      + (f'These do: {", ".join(others)}' if others else 'None of the others does either'))
