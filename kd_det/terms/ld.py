"""LD: the teacher's distributions over the places of box edges, and its classes, near objects (Zheng et al. 2022)."""
from typing import Any

import torch
from mmdet.structures.bbox import get_box_tensor
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn

from ..arguments import at_most_one, fraction, one_of, positive, positive_int
from ..assignment.valuable_region import valuable_region
from ..build import checked
from ..errors import ConfigError
from ..heads.dense_outputs import DenseOutputs, decoder_of
from ..heads.dense_targets import DenseTargets
from .compared import build_loss, is_off
from .constants import localisation_constants
from .dense import check_dense_pair, check_targets, dense_head, hear_targets, student_outputs, student_targets
from .places import places_of_all
from .seen import priors_inside, seen_boxes
from .step import Step, UnlabelledStep
from .term import Term

PARTS = ('main', 'vlr', 'cls')
NORMALISERS = ('images', 'positives')


class LD(Term):
    """Localisation distillation for heads that predict a distribution over each edge's place (GFL)::

        D_i   = T^2 KL(teacher's distribution || student's), mean over the 4 edges and the bins, T 10
        main  = 0.25 / Z * sum over positives of s_i D_i,             s_i = max over classes of sigmoid(student)
        vlr   = w_v / Z * sum over the valuable region of v_i D_i,    v_i = IoU of anchor and object
        cls   = 10 C / 80 * sum over levels of the mean over a level's positives of T^2 KL of the classes, softmax, T 2

    Positives are those of the student's assigner; s_i and v_i are constants. The valuable region is that of
    :func:`kd_det.assignment.valuable_region.valuable_region`.

    **Normaliser Z.** The released code (and MMDetection's ``LDHead``) divides by nothing: with R ranks of B images the
    gradient is (1 / R) * sum over all R B images, which grows with B. The figures were made with B = 2. The same
    gradient is (2 / (R B)) * sum, so that

    - ``'images'``: Z = (images per rank, averaged over ranks) / 2 is the released setting at 2 images per GPU exactly,
      on any data set, and the same for every other number of images and ranks.
    - ``'positives'``: Z = (positives per rank, averaged over ranks) / ``positives``, where ``positives`` is how many
      two images of this data set have on average: the same setting on average, but a batch with many positives counts
      no more than one with few, as in GFL's own losses. The log shows ``ld_positives_of_two_images``.

    **Classes.** The released class loss is a mean over COCO's classes; with its weight of 10 one of 3 classes would
    count 27 times what one of 80 does. The default weight is therefore 10 C / 80, which is the released one on COCO.

    **Images without labels.** ``main`` and ``cls`` are of the positives of the student's assigner and are left out.
    ``vlr`` acts around the boxes that the teacher sees (:func:`kd_det.terms.seen.seen_boxes`, from ``seen_from`` on) in
    the place of the objects, at priors whose centre lies in the image, and is divided by images as above, whichever
    normaliser is chosen.

    A level's positives, which divide ``cls``, are averaged over ranks as well. Every value is therefore the same for a
    batch on one process or split over ranks.

    Args:
        main (dict | None): loss on the positives' distributions, ``DistributionKLLoss``. None or weight 0: off.
        vlr (dict | None): the same in the valuable region.
        cls (dict | None): loss on the positives' class logits, ``KnowledgeDistillationKLDivLoss``.
        alpha (float): lower end of the valuable region, in (0, 1].
        topk (int): ATSS' candidates per level.
        normaliser (str): 'images' or 'positives'.
        positives (float | None): for 'positives'.
        seen_from (float): the score from which on the teacher's box stands for an object of an image without labels;
            0.3, which is ours.
        **term: see :class:`kd_det.terms.term.Term`.

    What is not given of the losses is in :data:`kd_det.terms.constants.LOCALISATION`, and the plan prints it.

    Raises:
        ConfigError: a head without distributions, other bins, places or classes in the teacher, unknown keys.

    Source: Zheng et al., "Localization Distillation for Dense Object Detection", CVPR 2022, eq. 4 and algorithm 1;
    constants of its released configurations.
    """

    main: nn.Module | None
    vlr: nn.Module | None
    cls: nn.Module | None

    def __init__(self, main: dict | str | None = 'default', vlr: dict | str | None = 'default',
                 cls: dict | str | None = 'default', alpha: float = 0.25, topk: int = 9, normaliser: str = 'images',
                 positives: float | None = None, seen_from: float = 0.3, **term: Any) -> None:
        super().__init__(**term)
        self._cfgs = dict(main=main, vlr=vlr, cls=cls)
        for part, cfg in self._cfgs.items():
            if cfg is not None and cfg != 'default' and not isinstance(cfg, dict):
                raise ConfigError(f'{self.key}.{part}: found {cfg!r}; a dict is expected, or None to leave it out')
        self.alpha = checked(f'{self.key}.alpha', at_most_one, alpha)
        checked(f'{self.key}.alpha', positive, alpha)
        self.topk = checked(f'{self.key}.topk', positive_int, topk)
        self.normaliser = checked(f'{self.key}.normaliser', one_of, normaliser, NORMALISERS)
        if positives is not None:
            checked(f'{self.key}.positives', positive, positives)
        if (positives is None) == (normaliser == 'positives'):
            raise ConfigError(f'{self.key}.positives: found {positives!r} with normaliser={normaliser!r}; '
                              + ('give the number of positives that two images have on average, which the log of a run '
                                 'with normaliser=\'images\' shows as ld_positives_of_two_images' if positives is None
                                 else 'it is for normaliser=\'positives\''))
        self.positives = positives
        self.seen_from = checked(f'{self.key}.seen_from', fraction, seen_from)
        self.main = self.vlr = self.cls = None

    # -- before training --------------------------------------------------------------------------------------------
    @property
    def off(self) -> bool:
        return all(is_off(cfg) for cfg in self._cfgs.values())

    @property
    def compares_classes(self) -> bool:
        return self.cls is not None

    def check(self, student: nn.Module, source: Any) -> None:
        head, theirs = dense_head(student, 'model'), dense_head(source.model, f'{source.key}.config')
        bins = [_bins(one, key, self.key) for one, key in ((head, 'model.bbox_head'), (theirs, f'{source.key}.config'))]
        check_dense_pair(self.key, student, source)
        check_targets(self.key, student)
        if bins[0] != bins[1]:
            raise ConfigError(f'bbox_head.reg_max: the student\'s edges have {bins[0]} bins, the teacher\'s {bins[1]}; '
                              f'{self.key} compares them bin by bin')
        constants = localisation_constants(student)
        for part, kind in zip(PARTS, ('distributions', 'distributions', 'scores')):
            cfg = self._cfgs[part]
            if not is_off(cfg):
                setattr(self, part, build_loss(f'{self.key}.{part}', {} if cfg == 'default' else cfg,
                                               constants.loss[part], kind))
        self._of = constants.of
        if self.cls is not None and head.num_classes != theirs.num_classes:
            raise ConfigError(f'bbox_head.num_classes: the student scores {head.num_classes} classes, the teacher '
                              f'{theirs.num_classes}; {self.key}.cls=None leaves the classes out')
        places = head.prior_generator.grid_priors([(1, 1)] * len(head.prior_generator.strides), device='cpu')
        if self.vlr is not None and get_box_tensor(places[0]).shape[-1] != 4:
            raise ConfigError(f'{self.key}.vlr: the region is of anchors, and the priors of the student\'s '
                              f'{type(head).__name__} are points; vlr=None leaves it out')

    def asks(self) -> tuple[str, ...]:
        return ('dense',)

    def names(self) -> list[str]:
        return [name + self.suffix for part, name in zip(PARTS, ('loss_ld', 'loss_ld_vlr', 'loss_ld_cls'))
                if getattr(self, part) is not None]

    @property
    def needs_labels(self) -> str:
        return '' if self.vlr is not None else 'its parts are of the positives of the student\'s assigner'

    def unlabelled_names(self) -> list[str]:
        return ['loss_ld_vlr' + self.suffix]

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        hear_targets(step)

    def _sides(self, step: Step) -> tuple[DenseOutputs, DenseOutputs]:
        """What student and teacher say of the batch."""
        teacher, student = step.source(self.source).dense_outputs(), student_outputs(step)
        if student.regression.shape != teacher.regression.shape:
            raise RuntimeError(f'the student has edges {tuple(student.regression.shape)} (images, priors, 4 * bins), '
                               f'the teacher {tuple(teacher.regression.shape)}; both need the same padding '
                               '(data_preprocessor.pad_size_divisor)')
        return student, teacher

    def losses(self, step: Step) -> dict[str, Tensor]:
        student, teacher = self._sides(step)
        objects = [get_box_tensor(sample.gt_instances.bboxes) for sample in step.samples]
        found = self.compare(student, teacher, student_targets(step), objects)
        return {name + self.suffix: value for name, value in found.items()}

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        student, teacher = self._sides(step)
        with torch.no_grad():
            inside = priors_inside(student.priors, step.samples)  # (N, P)
            seen = seen_boxes(teacher, None, inside, self.seen_from)
            region = self._region(student, inside, seen).flatten()
            index = places_of_all(region > 0)[0]
            images = reduce_mean(region.new_tensor(float(len(step.samples))))
        value = self.vlr(*_edges(student, teacher, index), weight=region[index], avg_factor=images / 2)
        return {f'loss_ld_vlr{self.suffix}': value}

    def compare(self, student: DenseOutputs, teacher: DenseOutputs, targets: DenseTargets,
                objects: list[Tensor]) -> dict:
        """The losses of one batch.

        Args:
            student, teacher: N images with P priors each.
            targets: of the student's assigner.
            objects: of each image (G, 4), xyxy in pixels.

        Returns:
            dict[str, Tensor]: by the names in the log, without the suffix; and how many positives two images have.
        """
        with torch.no_grad():
            chosen, normaliser, per_level, pairs = self._counts(targets)
            places = [chosen.flatten()]
            if self.vlr is not None:
                region = self._region(student, targets.label_weights, objects)  # (N, P)
                places.append(region.flatten() > 0)
            index, *rest = places_of_all(*places)
        losses = {}
        if self.main is not None:
            weight = student.logits.detach().flatten(0, 1)[index].sigmoid().amax(1)  # (S,), s_i
            losses['loss_ld'] = self.main(*_edges(student, teacher, index), weight=weight, avg_factor=normaliser)
        if self.vlr is not None:
            losses['loss_ld_vlr'] = self.vlr(*_edges(student, teacher, rest[0]), weight=region.flatten()[rest[0]],
                                             avg_factor=normaliser)
        if self.cls is not None:
            share = torch.cat([(1 / count).expand(size) for count, size in zip(per_level, targets.level_sizes)])  # (P,)
            ours, soft = (side.logits.flatten(0, 1)[index] for side in (student, teacher))  # (S, C)
            losses['loss_ld_cls'] = self.cls(ours, soft.detach(), weight=share[index % len(share)],
                                             reduction_override='sum')
        losses['ld_positives_of_two_images'] = pairs
        return losses

    def _counts(self, targets: DenseTargets) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Positives (N, P); Z; positives of each level (L,); of two images."""
        chosen, ranks = targets.positive, get_world_size()
        levels = torch.stack([level.sum() for level in targets.per_level(chosen)])  # (L,)
        counts = reduce_mean(torch.cat([levels, levels.new_full((1,), len(chosen))]).float())  # one wait for all ranks
        levels, images = counts[:-1], counts[-1]
        total = levels.sum()
        pairs = 2 * total / images
        normaliser = images / 2 if self.normaliser == 'images' else total.clamp(min=1 / ranks) / self.positives
        return chosen, normaliser, levels.clamp(min=1 / ranks), pairs

    def _region(self, student: DenseOutputs, weights: Tensor, objects: list[Tensor]) -> Tensor:
        """(N, P), around ``objects`` (G, 4) of each image, of priors with ``weights`` (N, P) above 0."""
        return valuable_region(student.priors, student.level_sizes, weights > 0, objects, self.alpha, self.topk)

    def describe(self) -> list[str]:
        parts = [(name, getattr(self, part)) for part, name in zip(PARTS, (
            'positives\' edges', f'edges in the valuable region (DIoU in [{self.alpha:g} t, t))',
            'positives\' classes'))]
        schedule = self.schedule.describe()
        lines = [f'localisation distillation <- {self.source}' + (f', {schedule}' if schedule else '')
                 + f'; what is not given is {self._of}\'s']
        lines += [f'    {name}: {type(loss).__name__} ({_constants(loss)})' for name, loss in parts if loss is not None]
        edges = self.main is not None or self.vlr is not None
        if edges and self.normaliser == 'images':
            lines.append('    edges are divided by images per rank / 2: what the released code, which divides by '
                         'nothing, gives at 2 images per GPU')
        elif edges:
            lines.append(f'    edges are divided by positives per rank / {self.positives:g}: what the released code, '
                         f'which divides by nothing, gives at 2 images per GPU that have {self.positives:g} positives')
        return lines


def _edges(student: DenseOutputs, teacher: DenseOutputs, index: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (S, 4, bins) of both at the places ``index`` of N * P."""
    ours, theirs = (side.regression.flatten(0, 1)[index].unflatten(1, (4, -1)) for side in (student, teacher))
    return ours, theirs.detach()


def _bins(head: nn.Module, where: str, key: str) -> int:
    """Of each edge's distribution; raises :class:`ConfigError` for a head that has none."""
    reg_max = getattr(head, 'reg_max', None)
    if not isinstance(reg_max, int):
        raise ConfigError(f'{where}: {type(head).__name__} predicts one number for each edge, and {key} compares '
                          'distributions over the place of an edge; GFLHead and its subclasses have them (reg_max + 1 '
                          'bins). A BCKD or CrossKD term works on this head')
    decoder_of(head, where)
    return reg_max + 1


def _constants(loss: nn.Module) -> str:
    return loss.extra_repr() or f'T={loss.T}, loss_weight={loss.loss_weight}'
