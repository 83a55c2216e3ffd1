"""Label-assignment distillation, soft labels, and both (Nguyen et al. 2022)."""
from typing import Any

from ..arguments import boolean
from ..build import checked
from ..errors import ConfigError
from .distiller import Distiller
from .hints import hint_terms


class LADDistiller(Distiller):
    """A single-stage detector that learns from a teacher's label assignment.

    A preset of :class:`kd_det.detectors.distiller.Distiller`: ``lad`` is a term
    :class:`kd_det.terms.assignment.LabelAssignment`, ``soft_label`` a term :class:`kd_det.terms.soft_label.SoftLabel`.
    With both it is SoLAD: L = L_LAD + L_soft.

    Args:
        teacher (dict): see :class:`kd_det.sources.frozen.FrozenTeacher`; ``scale_factor`` must be 1.
        lad (bool): False leaves the student its own assignment.
        soft_label (dict | None): SoLAD's second part; ``dict()`` takes the paper's values (class weight 2, min_iou
            0.5).
        box_loss_average, dynamic_from_start, copy_quality: see :class:`kd_det.terms.assignment.LabelAssignment`.
        hints (list[dict]): see :class:`kd_det.terms.hint.Hint`.
        **student: ``student_type`` and the student's own arguments, and those of ``Distiller``.

    Raises:
        ConfigError: a head without dynamic assignment or of another geometry than the teacher's;
            unknown values.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    beside_lad = True

    def __init__(self, *args: Any, lad: bool = True, soft_label: dict | None = None,
                 box_loss_average: str | None = None, dynamic_from_start: bool = True, copy_quality: bool = False,
                 hints: list[dict] | tuple = (), **student: Any) -> None:
        self._preset = dict(lad=checked('lad', boolean, lad), soft_label=soft_label, hints=hints)
        self._assignment = dict(box_loss_average=box_loss_average, dynamic_from_start=dynamic_from_start,
                                copy_quality=copy_quality)
        super().__init__(*args, **student)

    def term_configs(self, cfgs: list[dict] | tuple) -> list[tuple[str, dict]]:
        found = []
        if self._preset['lad']:
            found.append(('lad', dict(self._assignment, type='LabelAssignment')))
        elif self._assignment['box_loss_average'] == 'paper':
            raise ConfigError('box_loss_average=\'paper\' is for PAA with lad=True; without it the student\'s box loss '
                              'keeps its own weights')
        soft_label = self._preset['soft_label']
        if soft_label is not None:
            if not isinstance(soft_label, dict):
                raise ConfigError(f'soft_label: found {soft_label!r}; a dict is expected, or None')
            found.append(('soft_label', dict(soft_label, type='SoftLabel', beside_lad=self.beside_lad)))
        return [*found, *hint_terms(self._preset['hints']), *super().term_configs(cfgs)]


class SoftLabelDistiller(LADDistiller):
    """A dense single-stage detector that imitates a teacher's predictions; assignment plays no part.

    :class:`LADDistiller` with ``lad=False`` and ``ground_truth=False`` by default: the paper's soft-label baseline has
    no loss on the ground truth, and its class term weighs 10.

    Args:
        soft_label (dict): see :class:`kd_det.terms.soft_label.SoftLabel`; ``dict()`` takes the paper's values.
        ground_truth (bool): keep the student's own losses beside the soft labels.
        **student: as for :class:`LADDistiller`.
    """

    beside_lad = False

    def __init__(self, *args: Any, soft_label: dict, ground_truth: bool = False, lad: bool = False,
                 **student: Any) -> None:
        super().__init__(*args, soft_label=soft_label, ground_truth=ground_truth, lad=lad, **student)
