"""The distilled loss of one stage of Faster R-CNN: hard and soft classification, bounded regression."""
from typing import Any

from torch import Tensor, nn

from ..arguments import at_most_one, non_negative
from ..build import checked
from ..errors import ConfigError
from .compared import build_loss, is_off
from .schedule import training_progress
from .term import Term

CLS = dict(type='SoftTargetLoss', background_weight=1.5)
BBOX = dict(type='TeacherBoundedLoss', margin=0.0, loss_weight=0.5)


class Stage(Term):
    """The distilled loss of one stage (RPN or R-CNN)::

        L_cls = mu * CE(P_s, y) + (1 - mu) * L_soft(P_s, P_t)
        L_reg = lambda * (smoothL1(R_s, y) + nu * L_b(R_s, R_t, y))

    Args:
        hard_weight (float | str | None): mu in [0, 1]. The paper does not give it; 0.5 is ours. 1 without ``cls``.
            'anneal': mu rises linearly from 0, the teacher alone, to 1, the ground truth alone, over the iterations of
            training (teacher annealing: the target is mu y + (1 - mu) P_t; Clark et al. 2019, BAM, arXiv 1907.04829).
        reg_weight (float): lambda, 1 in the paper.
        cls (dict | None): the soft loss, ``SoftTargetLoss`` with w_background 1.5 by default. None: off.
        bbox (dict | None): the box loss, ``TeacherBoundedLoss`` with nu = ``loss_weight`` = 0.5 by default. None: off.
        **term: see :class:`kd_det.terms.term.Term`. A schedule's factor f scales the soft terms, and mu becomes
            1 - f (1 - mu), lambda 1 - f (1 - lambda): at f = 0 the stage is the plain one.

    On images without labels (:class:`kd_det.detectors.unlabelled.Unlabelled`) the soft loss acts alone and whole, - sum
    P_t log P_s at what the teacher proposes (Chen et al. 2020, SimCLRv2, arXiv 2006.10029, eq. 2): there is no y to be
    mixed with, and the bounded box loss needs one.

    A term of weight 0 is not computed. Source: Chen et al. 2017, eq. 1 to 5.
    """

    takes_several = True
    cls: nn.Module | None
    bbox: nn.Module | None

    def __init__(self, hard_weight: float | str | None = None, reg_weight: float = 1.0,
                 cls: dict | str | None = 'default', bbox: dict | str | None = 'default', **term: Any) -> None:
        super().__init__(**term)
        self._cls_cfg = dict(CLS) if cls == 'default' else cls
        self._bbox_cfg = dict(BBOX) if bbox == 'default' else bbox
        for name, value in (('cls', self._cls_cfg), ('bbox', self._bbox_cfg)):
            if value is not None and not isinstance(value, dict):
                raise ConfigError(f'{self.key}.{name}: found {value!r}; a dict is expected, or None to leave it out')
        no_soft_loss = is_off(self._cls_cfg)
        self.anneals = hard_weight == 'anneal'
        hard_weight = 0.0 if self.anneals else hard_weight
        self.hard_weight = checked(f'{self.key}.hard_weight', at_most_one, (1.0 if no_soft_loss else 0.5)
                                   if hard_weight is None else hard_weight)  # mu
        self.reg_weight = checked(f'{self.key}.reg_weight', non_negative, reg_weight)  # lambda
        if no_soft_loss and self.hard_weight != 1:
            raise ConfigError(f'{self.key}.hard_weight: {hard_weight} without a soft loss ({self.key}.cls={cls}) would '
                              'only weaken the ground truth; leave hard_weight out, or give a cls loss')
        self._soft_is_on = not no_soft_loss and self.hard_weight != 1
        self._bbox_is_on = not is_off(self._bbox_cfg) and self.reg_weight != 0
        self.cls = self.bbox = None
        self.use_sigmoid = False

    @property
    def off(self) -> bool:
        """Nothing is added, and the hard losses stay as they are."""
        return not self.active and self.reg_weight == 1

    @property
    def active(self) -> bool:
        """Whether the source is asked."""
        return self._soft_is_on or self._bbox_is_on

    @property
    def needs_labels(self) -> str:
        return '' if self._soft_is_on else 'it has no soft loss, and its box loss is bounded by the ground truth'

    @property
    def compares_classes(self) -> bool:
        return False

    def build_losses(self, use_sigmoid: bool) -> None:
        """Build both losses; ``use_sigmoid`` is how the student's head turns scores into probabilities."""
        self.use_sigmoid = use_sigmoid
        if self._soft_is_on:
            if 'use_sigmoid' in self._cls_cfg:
                raise ConfigError(f'{self.key}.cls.use_sigmoid: leave it out, it follows from the student\'s head '
                                  f'({use_sigmoid})')
            self.cls = build_loss(f'{self.key}.cls', self._cls_cfg, CLS, 'scores', use_sigmoid=use_sigmoid)
        if self._bbox_is_on:
            self.bbox = build_loss(f'{self.key}.bbox', self._bbox_cfg, BBOX, 'boxes')

    def soft_weight(self) -> float:
        """1 - mu."""
        return 1 - self.mu()

    def mu(self) -> float:
        """The weight of the ground truth's classes in the step that is about to be taken."""
        return training_progress() if self.anneals else self.hard_weight

    def weigh(self, losses: dict[str, Any], cls: str, bbox: str, factor: float,
              levels: list[int] | None = None) -> None:
        """mu on the student's own classification loss (only at ``levels``, where it has several), lambda on its
        regression, in place.
        """
        _scale(losses, cls, 1 - factor * (1 - self.mu()) if factor != 1 else self.mu(), levels)
        _scale(losses, bbox, 1 - factor * (1 - self.reg_weight) if factor != 1 else self.reg_weight)

    def describe_losses(self) -> str:
        cls = f'{type(self.cls).__name__} ({self.cls.extra_repr()})' if self.cls is not None else 'off'
        bbox = f'{type(self.bbox).__name__} ({self.bbox.extra_repr()})' if self.bbox is not None else 'off'
        schedule = self.schedule.describe()
        mu = 'rising from 0 to 1 over training' if self.anneals else f'{self.hard_weight:g}'
        return (f'hard_weight {mu}, soft loss {cls}; reg_weight {self.reg_weight:g}, box loss {bbox}'
                + (f', {schedule}' if schedule else ''))


def _scale(losses: dict[str, Any], name: str, factor: float, levels: list[int] | None = None) -> None:
    """Multiply a loss (per level: only those in ``levels``) in place; factor 1 leaves the tensors untouched."""
    if factor == 1 or name not in losses:
        return
    value: Tensor | list[Tensor] = losses[name]
    if isinstance(value, list):
        losses[name] = [v * factor if levels is None or i in levels else v for i, v in enumerate(value)]
    else:
        losses[name] = value * factor
