"""The anchors' scale, where a data set's objects are far from COCO's sizes."""
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

import torch
from mmdet.registry import TASK_UTILS
from mmengine.registry import DefaultScope
from torch import Tensor

CANDIDATES = (1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0)
GAIN = 0.05  # share of objects that a new scale must win to be worth it
IOU = 0.5


@dataclass
class Scale:
    """A scale of anchors: dotted ``path`` of the value in ``model``, what it was and what it should be, and why."""

    path: str
    old: float
    new: float
    reason: str

    @property
    def changed(self) -> bool:
        return self.new != self.old

    @property
    def value(self) -> list | float:
        """As the config writes it."""
        number = int(self.new) if self.new == int(self.new) else self.new
        return [number] if self.path.endswith('.scales') else number


def anchor_scale(model: dict, pipeline: Sequence[dict], sides: Sequence[tuple[float, float, int, int]]) -> Scale | None:
    """The scale at which most objects have an anchor of their shape.

    An object is served if an anchor centred on it has an IoU of at least 0.5. Where the config's scale serves all but 5
    % of what the best of :data:`CANDIDATES` serves, it stays; else the nearest that serves within 1 % of the best is
    taken. Only heads that assign by IoU with anchors (RPN, RetinaNet, PAA ...) are looked at.

    Args:
        model: the detector's config.
        pipeline: of the data as it is evaluated; its Resize says how large objects are in the network's input.
        sides: (width, height) of each object and of its image, in pixels.

    Returns:
        Scale | None: None where the detector has no such anchors, or several scales a level.
    """
    place = _generator(model)
    if place is None or not sides:
        return None
    path, generator = place
    key = 'octave_base_scale' if 'octave_base_scale' in generator else 'scales'
    old = float(generator[key][0] if key == 'scales' else generator[key])
    with DefaultScope.overwrite_default_scope('mmdet'):
        levels = TASK_UTILS.build(dict(generator)).base_anchors
    shapes = torch.cat([level[:, 2:] - level[:, :2] for level in levels])  # (A, 2)
    boxes = torch.tensor([_resized(*one, pipeline) for one in sides])  # (G, 2)
    served = {scale: _served(boxes, shapes * scale / old) for scale in {*CANDIDATES, old}}
    best, new = max(served.values()), old
    if served[old] < best - GAIN:
        new = min((scale for scale in served if served[scale] >= best - 0.01), key=lambda scale: abs(scale - old))
    size = median((w * h)**0.5 for w, h in boxes.tolist())
    reason = f'the median object is {size:.0f} pixels wide in the network\'s input; {served[old]:.0%} of the objects ' \
        f'have an anchor of their shape (IoU {IOU}) at scale {old:g}'
    if new != old:
        reason += f', {served[new]:.0%} at {new:g}'
    return Scale(f'{path}.{key}', old, new, reason)


def of_both(student: Scale | None, teacher: Scale | None, trained: bool
            ) -> tuple[tuple[Scale | None, Scale | None], list[str]]:
    """The scales of student and teacher, and what is to be said of them.

    Heads of one kind are compared anchor by anchor, so they get one scale: the student's new one, or, where the teacher
    is taken as it comes, the teacher's. Heads of two kinds get theirs each.

    Args:
        student, teacher: as :func:`anchor_scale` finds them.
        trained: whether the teacher is trained here.
    """
    said = []
    if student is not None and teacher is not None and student.path == teacher.path:
        if trained:
            return (student, replace(teacher, new=student.new)), [_words(student, 'in teacher and student')]
        fixed = replace(student, new=teacher.old)
        if fixed.changed:
            said = [_words(fixed, 'in the student: the teacher\'s, which is taken as it comes')]
        elif student.changed:
            said = [f'anchors: scale {student.old:g} stays, because the teacher is taken as it comes; '
                    f'{student.reason}. --teacher-epochs N fine-tunes it, and sets both']
        else:
            said = [_words(student, '')]
        return (fixed, None), said
    if student is not None:
        said.append(_words(student, 'in the student'))
    if teacher is not None and trained:
        said.append(_words(teacher, 'in the teacher'))
    return (student, teacher if trained else None), said


def _words(scale: Scale, where: str) -> str:
    if not scale.changed:
        return f'anchors: scale {scale.old:g} stays; {scale.reason}'
    return f'ANCHORS: scale {scale.old:g} becomes {scale.new:g} {where}; {scale.reason}'


def _generator(model: dict) -> tuple[str, dict] | None:
    """(path, config) of the anchors that an IoU assigner uses; None: there are none with one scale a level."""
    train = model.get('train_cfg') or {}
    for head, cfg in (('rpn_head', train.get('rpn') or {}), ('bbox_head', train)):
        generator = (model.get(head) or {}).get('anchor_generator') if isinstance(model.get(head), dict) else None
        assigner = cfg.get('assigner') if isinstance(cfg, dict) else None
        if not generator or not assigner:
            continue
        one = 'octave_base_scale' in generator or len(generator.get('scales') or ()) == 1
        if one and assigner.get('type') == 'MaxIoUAssigner' and generator.get('type') == 'AnchorGenerator':
            return f'{head}.anchor_generator', dict(generator)
    return None


def _resized(width: float, height: float, image_width: int, image_height: int, pipeline: Sequence[dict]
             ) -> tuple[float, float]:
    """An object's sides after the Resize of a pipeline."""
    scale, keep = input_scale(pipeline)
    if scale is None:
        return width, height
    if not keep:
        return width * scale[0] / image_width, height * scale[1] / image_height
    factor = min(max(scale) / max(image_width, image_height), min(scale) / min(image_width, image_height))
    return width * factor, height * factor


def input_scale(pipeline: Sequence[dict]) -> tuple[tuple[int, int] | None, bool]:
    """(width, height) that a pipeline's Resize gives, and whether proportions are kept; None: to no fixed size."""
    for step in pipeline:
        if str(step.get('type')).rsplit('.', 1)[-1] in ('Resize', 'FixScaleResize') and step.get('scale'):
            scale = step['scale']
            size = tuple(scale) if isinstance(scale, (list, tuple)) else (scale, scale)
            return size, bool(step.get('keep_ratio', False))
    return None, True


def _served(boxes: Tensor, shapes: Tensor) -> float:
    """Share of boxes (G, 2) with an anchor shape (A, 2) of IoU 0.5, both centred on one point."""
    overlap = torch.minimum(boxes[:, None], shapes[None]).prod(-1)  # (G, A)
    union = boxes.prod(-1)[:, None] + shapes.prod(-1)[None] - overlap
    return float(((overlap / union).max(1).values >= IOU).float().mean())
