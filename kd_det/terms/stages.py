"""Which R-CNN stage of a teacher answers for which of the student's, where one of them is a cascade."""
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..sources.layers import box_heads

CHOICES = ('nearest', 'last')


def pair_stages(key: str, student: nn.Module, source: Any, wanted: str | list[int]) -> list[int]:
    """The teacher's stage for each stage of the student.

    Equally many stages are paired one by one. Otherwise a cascade meets another number of stages, and a stage is known
    by the IoU from which a RoI counts as an object in its training (``train_cfg.rcnn.assigner.pos_iou_thr``: 0.5 in
    Faster R-CNN; 0.5, 0.6, 0.7 in Cascade R-CNN): the scores of one threshold answer another question than those of the
    next.

    Args:
        key: of the term in the config, for messages.
        student, source: the pair.
        wanted: 'nearest' takes the teacher's stage of the nearest threshold, the earlier one of two that are equally
            near; 'last' the teacher's last stage for all; or the stages themselves, one a stage of the student.

    Raises:
        ConfigError: no such choice or stage, or a stage without a threshold where one is needed.
    """
    ours, theirs = len(box_heads(student)), len(box_heads(source.model))
    if isinstance(wanted, (list, tuple)):
        if len(wanted) != ours or any(isinstance(one, bool) or not isinstance(one, int) or not 0 <= one < theirs
                                      for one in wanted):
            raise ConfigError(f'{key}.stages: found {wanted!r}; the student has {ours} R-CNN stages, the teacher '
                              f'{theirs}: {ours} numbers from 0 to {theirs - 1} are expected')
        return list(wanted)
    if wanted not in CHOICES:
        raise ConfigError(f'{key}.stages: found {wanted!r}; one of {list(CHOICES)} or a list of the teacher\'s stages '
                          'is expected')
    if wanted == 'last':
        return [theirs - 1] * ours
    if ours == theirs:
        return list(range(ours))
    limits = thresholds(source.model)
    known = [limit for limit in limits if limit is not None]
    mine = thresholds(student)
    if len(known) < theirs or None in mine:
        who = 'teacher' if len(known) < theirs else 'student'
        raise ConfigError(f'{key}.stages: the student has {ours} R-CNN stages, the teacher {theirs}, and the {who}\'s '
                          'train_cfg.rcnn.assigner has no pos_iou_thr to pair them by; give stages=\'last\', or a list '
                          'of the teacher\'s stages')
    return [min(range(theirs), key=lambda j: (round(abs(limits[j] - limit), 6), j)) for limit in mine]


def thresholds(model: nn.Module) -> list[float | None]:
    """``pos_iou_thr`` of each R-CNN stage; None where its training is not known or has none."""
    found = getattr(model.roi_head, 'train_cfg', None)
    stages = len(box_heads(model))
    cfgs = list(found) if isinstance(found, (list, tuple)) else [found] * stages
    return [((cfg or {}).get('assigner') or {}).get('pos_iou_thr') for cfg in cfgs]


def describe_stages(student: nn.Module, source: Any, name: str, partners: list[int]) -> list[str]:
    """Lines of the plan; none where stages are paired one by one."""
    if partners == list(range(len(box_heads(source.model)))):
        return []

    def shown(limit: float | None) -> str:
        return '' if limit is None else f' (IoU {limit:g})'
    ours, theirs = thresholds(student), thresholds(source.model)
    return [f'    student R-CNN stage {i}{shown(ours[i])} <- {name} R-CNN stage {j}{shown(theirs[j])}'
            for i, j in enumerate(partners)]
