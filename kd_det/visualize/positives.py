"""Which priors teacher and student make positive for each object of an image: what LAD hands over."""
from contextlib import ExitStack
from dataclasses import dataclass, replace

import torch
from mmengine.structures import InstanceData
from PIL import Image
from torch import Tensor, nn

from ..assignment.dynamic import dynamic_assigners
from ..assignment.record import Decision
from ..compare.images import prepared
from ..compare.sample import Photo, Sample
from ..errors import CompareError, ConfigError
from ..sources.passes import Pass
from ..tap import replaced
from ..terms.assignment import decisions
from .canvas import COLOURS, Dot, Mark, Panel, grid, marked, read
from .subjects import Taught

ALONE, OTHER, BOTH, GREY = '#0072B2', '#D55E00', '#000000', '#777777'


@dataclass
class Positives:
    """The decision of a head about one image.

    Attributes:
        centres: (P, 2), x and y of every prior, pixels of the network's input.
        sides: (P,), what a prior's size is known by: the side of an anchor, the stride of a point; pixels.
        chosen: by object, places among the priors.
    """
    centres: Tensor
    sides: Tensor
    chosen: list[Tensor]


def inputs_of(found: Taught, sample: Sample, photo: Photo) -> tuple[Tensor, list]:
    """An image as the student sees it in testing, with its objects as ground truth: (1, C, H, W), and its sample."""
    batch = prepared(found.cfg, [photo.path], 1)[0]
    device = next(found.model.parameters()).device
    data = found.model.data_preprocessor(batch, False)
    one, = data['data_samples']
    factor = torch.tensor(one.metainfo['scale_factor'], dtype=torch.float32).repeat(2)
    for crowd, key in ((0, 'gt_instances'), (1, 'ignored_instances')):
        things = [thing for thing in sample.objects(photo) if bool(thing['iscrowd']) == bool(crowd)]
        boxes = torch.tensor([thing['bbox'] for thing in things], dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        labels = torch.tensor([thing['category_id'] for thing in things], dtype=torch.long)
        setattr(one, key, InstanceData(bboxes=(boxes * factor).to(device), labels=labels.to(device)))
    return data['inputs'], [one]


@torch.no_grad()
def positives_of(found: Taught, inputs: Tensor, samples: list) -> dict[str, Positives]:
    """What the student and each of its sources decide about an image; of an image without objects nothing.

    Args:
        found: whose head decides by predictions (:func:`check_decides`).
        inputs, samples: of :func:`inputs_of`.
    """
    if len(samples[0].gt_instances) == 0:
        return {}
    model = found.model
    passes = {'student': Pass(model, inputs, samples, {})}
    for name, source in model.sources.items():
        if hasattr(getattr(source, 'model', None), 'bbox_head') and hasattr(source, 'prepare'):
            passes[name] = source.open(inputs, samples)
    return {name: _decided(one, len(samples[0].gt_instances)) for name, one in passes.items()}


def check_decides(found: Taught) -> None:
    """Raises :class:`CompareError` unless the student's dense head assigns by its predictions."""
    head = getattr(found.model, 'bbox_head', None)
    if head is None or not hasattr(head, 'loss_by_feat'):
        raise CompareError(f'{found.name}: {type(found.model).student_class.__name__} has no dense head; its anchors '
                           'are assigned by their overlap alone, alike in teacher and student')
    try:
        dynamic_assigners(head)
    except ConfigError as error:
        raise CompareError(f'{found.name}: {error}') from None


def _decided(one: Pass, objects: int) -> Positives:
    head = one.model.bbox_head
    with ExitStack() as stack:
        if getattr(head, 'initial_epoch', 0):  # TOOD's first epochs, in which it assigns statically
            stack.enter_context(replaced(head, initial_epoch=0))
        record = decisions(one, [objects])
    return read_decision(record.decisions[0], head, objects)


def read_decision(decision: Decision, head: nn.Module, objects: int) -> Positives:
    """A head's decision about an image as places among its priors.

    Args:
        decision: of an assigner, or of a PAA head.
        head: who decided.
        objects: of the image.
    """
    evidence = decision.evidence
    if isinstance(decision.result, tuple):  # PAA: labels of all priors, and which object each candidate is for
        priors = torch.cat([level for name, level in evidence.items() if name.startswith('priors of level')])
        candidates, theirs = (evidence[name] for name in ('candidates (train_cfg.assigner)',
                                                          'candidates\' objects (train_cfg.assigner)'))
        labels = decision.result[0][candidates]
        positive = (labels >= 0) & (labels < head.num_classes)
        chosen = [candidates[positive & (theirs == k)] for k in range(objects)]
    else:
        priors = evidence['priors']
        chosen = [(decision.result.gt_inds == k + 1).nonzero().flatten() for k in range(objects)]
    if priors.shape[-1] == 4 and not _are_points(head):
        centres = (priors[:, :2] + priors[:, 2:]) / 2
        sides = (priors[:, 2:] - priors[:, :2]).prod(1).clamp(min=0).sqrt()
    else:  # x, y, and for YOLOX and RTMDet the stride twice
        centres, sides = priors[:, :2], priors[:, 2] if priors.shape[-1] > 2 else priors.new_ones(len(priors))
    return Positives(centres.cpu(), sides.cpu(), [places.cpu() for places in chosen])


def _are_points(head: nn.Module) -> bool:
    return type(head.prior_generator).__name__ == 'MlvlPointGenerator'


def picture(found: Taught, sample: Sample, photo: Photo, side: int) -> Image.Image | None:
    """The student's positives, each source's, and where they differ; None for an image without objects.

    A dot is the centre of a positive prior, larger for larger ones; its colour in the first panels is the object's.
    """
    inputs, samples = inputs_of(found, sample, photo)
    decided = positives_of(found, inputs, samples)
    if not decided:
        return None
    image, scale = read(photo.path, side)
    things = [thing for thing in sample.objects(photo) if not thing['iscrowd']]
    student = decided.pop('student')
    back = [1 / value for value in samples[0].metainfo['scale_factor']]  # from the network's input to the file
    boxes = [Mark(thing['bbox'], _colour(k), f'{k + 1}') for k, thing in enumerate(things)]

    def dots(one: Positives, place: Tensor, colour: str) -> list[Dot]:
        least = float(one.sides.min().clamp(min=1))
        return [Dot((float(one.centres[p, 0]) * back[0], float(one.centres[p, 1]) * back[1]), colour,
                    2.0 + 1.2 * float((one.sides[p].clamp(min=1) / least).log2())) for p in place.tolist()]

    def panel(name: str, one: Positives) -> Panel:
        count = sum(len(places) for places in one.chosen)
        return Panel(marked(image, scale, boxes, [dot for k, places in enumerate(one.chosen)
                                                  for dot in dots(one, places, _colour(k))]),
                     f'{name}: {count} positives')
    panels = [panel('student', student)]
    for name, one in decided.items():
        panels.append(panel(name, one))
        if one.centres.shape == student.centres.shape:
            found_by, lines = _difference(student, one, [sample.classes[thing['category_id']] for thing in things])
            drawn = [dot for colour, places in found_by.items() for dot in dots(student, places, colour)]
            panels.append(Panel(marked(image, scale, [replace(box, colour=GREY) for box in boxes], drawn),
                                f'student alone (blue) / {name} alone (orange) / both (black)\n' + ';  '.join(lines)))
    return grid([panels], 'positive priors by object')


def _colour(k: int) -> str:
    return COLOURS[k % len(COLOURS)]


def _difference(student: Positives, other: Positives, classes: list[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Colour -> priors that the student alone, the other alone, or both choose for one object; and how many by object.
    """
    found: dict[str, set[int]] = {ALONE: set(), OTHER: set(), BOTH: set()}
    lines = []
    for k, (mine, theirs) in enumerate(zip(student.chosen, other.chosen)):
        mine, theirs = set(mine.tolist()), set(theirs.tolist())
        parts = {ALONE: mine - theirs, OTHER: theirs - mine, BOTH: mine & theirs}
        for colour, places in parts.items():
            found[colour] |= places
        lines.append(f'{k + 1} {classes[k]}: ' + ' / '.join(str(len(places)) for places in parts.values()))
    return {colour: torch.tensor(sorted(places), dtype=torch.long) for colour, places in found.items()}, lines
