"""What terms on dense heads have in common."""
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..heads.dense_outputs import check_same_priors
from .step import Step


def dense_head(model: nn.Module, key: str) -> nn.Module:
    """The dense head of a single-stage detector; raises :class:`ConfigError`, naming ``key``, where there is none."""
    head = getattr(model, 'bbox_head', None)
    if head is None or not hasattr(head, 'loss_by_feat'):
        raise ConfigError(f'{key}: {type(model).__name__} has no dense bbox_head; a single-stage detector is needed')
    return head


def known_classes(source: Any, num_classes: int) -> int:
    """How many of the student's ``num_classes`` classes a source, or a member of an ensemble, has to score."""
    known = getattr(source, 'class_map', None)
    return num_classes if known is None else len(known)


def uses_sigmoid(head: nn.Module) -> bool:
    return bool(getattr(head, 'use_sigmoid_cls', True))


def check_dense_pair(key: str, student: nn.Module, source: Any, same_anchors: bool = False) -> tuple[nn.Module, nn.Module]:
    """Both heads, if they can be compared prior by prior: equally many priors at the same places, with ``same_anchors``
    of the same sizes too.

    Raises:
        ConfigError: no dense head, another resolution, other priors.
    """
    head, theirs = dense_head(student, 'model'), dense_head(source.model, f'{source.key}.config')
    if source.scale_factor != 1:
        raise ConfigError(f'{source.key}.scale_factor: found {source.scale_factor}; {key} compares prior by prior, and an '
                          'assignment is of one set of priors, which needs 1')
    for name, one in (('student', head), ('teacher', theirs)):
        if not hasattr(one, 'prior_generator'):
            raise ConfigError(f'{key}: the {name}\'s {type(one).__name__} has no priors to compare by')
    if same_anchors:
        check_same_priors(head, theirs)
    places = [(list(one.prior_generator.num_base_priors), [stride[0] if isinstance(stride, tuple) else stride
                                                           for stride in one.prior_generator.strides])
              for one in (head, theirs)]
    if places[0] != places[1]:
        raise ConfigError(f'bbox_head: the student has {places[0][0]} priors a place at strides {places[0][1]}, the '
                          f'teacher {places[1][0]} at {places[1][1]}; {key} compares prior by prior')
    return head, theirs


def student_outputs(step: Step) -> tuple:
    """What the student's head returned in this step (a term asked for it by ``step.hear('dense', ...)``)."""
    return step.hear('dense', step.student.bbox_head, 'forward')[0]['result']
