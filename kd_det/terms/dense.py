"""What terms on dense heads have in common."""
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..heads.dense_outputs import DenseOutputs, check_same_priors, decoder_of
from ..heads.dense_targets import DenseTargets, reader_of, targets_of
from .step import Step


def dense_head(model: nn.Module, key: str) -> nn.Module:
    """The dense head of a single-stage detector; raises :class:`ConfigError`, naming ``key``, where there is none."""
    head = getattr(model, 'bbox_head', None)
    if head is None or not hasattr(head, 'loss_by_feat'):
        hint = '; hints on the neck and PseudoLabel take a teacher of any kind' if key.endswith('.config') else ''
        raise ConfigError(f'{key}: {type(model).__name__} has no dense bbox_head; a single-stage detector is '
                          f'needed{hint}')
    return head


def known_classes(source: Any, num_classes: int) -> int:
    """How many of the student's ``num_classes`` classes a source, or a member of an ensemble, has to score."""
    known = getattr(source, 'class_map', None)
    return num_classes if known is None else len(known)


def uses_sigmoid(head: nn.Module) -> bool:
    return bool(getattr(head, 'use_sigmoid_cls', True))


def check_dense_pair(key: str, student: nn.Module, source: Any,
                     same_anchors: bool = False) -> tuple[nn.Module, nn.Module]:
    """Both heads, if they can be compared prior by prior: equally many priors at the same places, with ``same_anchors``
    of the same sizes too.

    Raises:
        ConfigError: no dense head, another resolution, other priors.
    """
    head, theirs = dense_head(student, 'model'), dense_head(source.model, f'{source.key}.config')
    if source.scale_factor != 1:
        raise ConfigError(f'{source.key}.scale_factor: found {source.scale_factor}; {key} compares prior by prior, and '
                          'an assignment is of one set of priors, which needs 1')
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


def check_binary_classes(key: str, student: nn.Module, source: Any) -> None:
    """Raises :class:`ConfigError` unless both heads score each class with a sigmoid of its own."""
    for head, where in ((dense_head(student, 'model'), 'bbox_head'),
                        (dense_head(source.model, f'{source.key}.config'), f'{source.key}.config')):
        if not uses_sigmoid(head):
            raise ConfigError(f'{where}: this {type(head).__name__} scores with a softmax '
                              f'(loss_cls.use_sigmoid=False); {key} compares classes as binary problems. SoftLabel '
                              'takes softmax heads')


def check_targets(key: str, student: nn.Module) -> None:
    """Whether it can be heard which priors the student's own loss makes positive (:func:`student_targets`).

    Raises:
        ConfigError: a head of which it is not known, or a student without its own losses.
    """
    reader_of(dense_head(student, 'model'), 'bbox_head')
    if not getattr(student, 'ground_truth', True):
        raise ConfigError(f'model.ground_truth: False, and {key} is divided by the positives of the student\'s '
                          'assigner, which its own losses ask; set ground_truth=True')


def hear_dense(step: Step) -> None:
    """In ``around``: listen to what the student's head predicts."""
    step.hear('dense', step.student.bbox_head, 'forward')


def hear_targets(step: Step) -> None:
    """In ``around``: listen to the predictions, and to how the student's own loss assigns labels."""
    hear_dense(step)
    _noted(step)


def student_outputs(step: Step) -> DenseOutputs:
    """In ``losses``: what the student's head said (:func:`hear_dense`); its graph is the student's own."""
    head = step.student.bbox_head
    return step.once('dense outputs', lambda: DenseOutputs.of(head, decoder_of(head, 'bbox_head'), step.dense()))


def student_targets(step: Step) -> DenseTargets:
    """In ``losses``: positives, label weights and the normaliser of the student's assigner (:func:`hear_targets`)::

        def check(self, student, source): check_targets(self.key, student)
        def around(self, step): hear_targets(step)
        def losses(self, step):
            targets = student_targets(step)
            loss = self.cls(student, teacher, weight=targets.label_weights.flatten(), avg_factor=targets.normaliser)
    """
    head, outputs = step.student.bbox_head, student_outputs(step)
    return step.once('dense targets', lambda: targets_of(head, _noted(step), len(outputs.logits), outputs.level_sizes))


def _noted(step: Step) -> dict[str, list]:
    head = step.student.bbox_head
    reader = reader_of(head, 'bbox_head')
    return {branch: step.hear(f'targets.{branch}', owner, method, reader.note)
            for branch, (owner, method) in reader.taps(head).items()}
