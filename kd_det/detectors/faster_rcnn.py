"""Faster R-CNN distillation (Chen et al., NIPS 2017): soft targets, teacher-bounded regression and hints."""
from typing import Any

from ..errors import ConfigError
from .distiller import Distiller
from .hints import hint_terms


class FasterRCNNDistiller(Distiller):
    """A two-stage detector taught by another one in both stages and through hints.

    A preset of :class:`kd_det.detectors.distiller.Distiller`: ``rpn_distill`` is a term
    :class:`kd_det.terms.rpn.RPNDistillation`, ``rcnn_distill`` a term :class:`kd_det.terms.rcnn.RCNNDistillation`, each
    hint a term :class:`kd_det.terms.hint.Hint`.

    The student is any ``TwoStageDetector`` config of the Faster R-CNN kind (Mask R-CNN's box branch, Cascade R-CNN's
    stages), the teacher any such detector. The student's own ``loss`` runs once and unchanged; what it hands to its
    losses (scores, deltas, targets, sampled RoIs) is listened to, and the teacher answers for the same anchors and the
    same RoIs with its own features.

    Args:
        teacher (dict): see :class:`kd_det.sources.frozen.FrozenTeacher`.
        rpn_distill, rcnn_distill (dict | None): see :class:`kd_det.terms.stage.Stage`; ``dict()`` takes the paper's
            values, None leaves the stage as it is.
        hints (list[dict]): see :class:`kd_det.terms.hint.Hint`.
        **student: ``student_type`` and the student's own arguments, and those of ``Distiller``.

    Raises:
        ConfigError: what teacher and student cannot share (anchors, classes, kinds of heads), with the config key.

    Source: Chen et al., "Learning Efficient Object Detection Models with Knowledge Distillation", NIPS 2017.
    """

    def __init__(self, *args: Any, rpn_distill: dict | None = None, rcnn_distill: dict | None = None,
                 hints: list[dict] | tuple = (), **student: Any) -> None:
        self._preset = dict(rpn_distill=rpn_distill, rcnn_distill=rcnn_distill, hints=hints)
        super().__init__(*args, **student)

    def term_configs(self, cfgs: list[dict] | tuple) -> list[tuple[str, dict]]:
        found = []
        for key, kind in (('rpn_distill', 'RPNDistillation'), ('rcnn_distill', 'RCNNDistillation')):
            cfg = self._preset[key]
            if cfg is None:
                continue
            if not isinstance(cfg, dict):
                raise ConfigError(f'{key}: found {cfg!r}; a dict is expected, or None to leave the stage as it is')
            found.append((key, dict(cfg, type=kind)))
        return [*found, *hint_terms(self._preset['hints']), *super().term_configs(cfgs)]
