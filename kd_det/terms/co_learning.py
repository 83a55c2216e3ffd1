"""Co-learning: two networks train together, the better assignment teaches both (Nguyen et al. 2022)."""
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.registry import TASK_UTILS
from torch import Tensor, nn

from ..arguments import non_negative_int
from ..assignment.replay import replay
from ..build import build, checked
from ..errors import ConfigError
from ..heads.dense_outputs import check_same_priors
from ..tap import replaced
from .co_learning_heads import co_learning
from .step import Step
from .term import Term

PEER_PREFIX = 'peer.'


class CoLearning(Term):
    r"""Both networks score the batch; per decision a criterion says whose costs are the better ones, and both networks'
    own, unmodified losses use the assignment that the chosen costs give::

        L = L_first(first; assignment) + L_second(second; assignment)

    (PAA's own box loss too, weighted by each network's IoU; LAD's averages over positives.) No gradient of one loss
    reaches the other network. Losses of the second are logged as ``peer.<name>``; ``first_teaches`` is the share of the
    batch's decisions that the first network took, out of ``decisions``.

    Args:
        criterion (dict): see :mod:`kd_det.assignment.criteria`.
        agreement_interval (int): every how many steps it is found out how far the assignments agree that each network's
            own costs give; 0: never. It costs two more separations of positives in such a step, and no other wait for
            the device. See :class:`kd_det.engine.agreement_hook.AgreementHook` for what is logged.
        granularity (str | None): see :func:`kd_det.terms.co_learning_heads.co_learning`. None: the paper's code for
            PAA, per ground truth and pyramid level.
        **term: see :class:`kd_det.terms.term.Term`; both networks learn from the first epoch to the last.

    Raises:
        ConfigError: unknown values; networks of other geometry, classes or kind of head.
        AssignmentMismatch: in a step, the networks see other priors or candidates.
        ValueError: in a step, costs are not finite.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    needs_labels = 'which priors serve which of its objects is all that is taught'
    compares_classes = True
    source_kind = 'peer'

    def __init__(self, criterion: dict | None = None, granularity: str | None = None,
                 agreement_interval: int = 10, **term: Any) -> None:
        super().__init__(**term)
        self.agreement_interval = checked('agreement_interval', non_negative_int, agreement_interval)
        self._steps = 0
        self._agreement: Tensor | None = None  # (4,), since it was taken last
        if not self.schedule.is_constant:
            raise ConfigError(f'{self.key}: two networks that learn together have no start_epoch, stop_epoch or decay')
        known = sorted(name for name in TASK_UTILS.module_dict if name.endswith('Criterion'))
        self.criterion_cfg = dict(type='StdMeanCriterion') if criterion is None else criterion
        if not isinstance(self.criterion_cfg, dict) or 'type' not in self.criterion_cfg:
            raise ConfigError(f'criterion: found {criterion!r}; a dict with a type is expected, one of {known}')
        if isinstance(self.criterion_cfg['type'], str) and TASK_UTILS.get(self.criterion_cfg['type']) is None:
            raise ConfigError(f'criterion.type: found {self.criterion_cfg["type"]!r}; registered are {known}')
        self.criterion = build('criterion', self.criterion_cfg, TASK_UTILS)
        self.granularity = granularity
        self._found: dict[str, Any] = {}
        self._names: list[str] = []

    def check(self, student: nn.Module, source: Any) -> None:
        peer = source.model
        if not isinstance(peer, SingleStageDetector):
            raise ConfigError(f'peer.config: {type(peer).__name__} is no single-stage detector; CoLAD needs two with '
                              'a bbox_head each')
        if not hasattr(student, 'bbox_head'):
            raise ConfigError(f'model: {type(student).__name__} is no single-stage detector; CoLAD needs two with a '
                              'bbox_head each')
        head, theirs = student.bbox_head, peer.bbox_head
        if head.num_classes != theirs.num_classes:
            raise ConfigError(f'bbox_head.num_classes: {head.num_classes}, the peer has {theirs.num_classes}')
        for key, one in (('bbox_head', head), ('peer.config: bbox_head', theirs)):
            if type(one).loss is not BaseDenseHead.loss:
                raise ConfigError(f'{key}: {type(one).__name__} has a loss() of its own; CoLAD computes losses from '
                                  'forward() and loss_by_feat()')
        if hasattr(head, 'prior_generator') and hasattr(theirs, 'prior_generator'):
            check_same_priors(head, theirs, ('first network', 'second'))
        self.co_learning = co_learning((head, theirs), self.criterion, self.granularity)

    def names(self) -> list[str]:
        """The peer's losses, known after the first step."""
        return self._names

    def around(self, step: Step) -> None:
        head, peer = step.student.bbox_head, step.source(self.source)
        own_losses = head.loss_by_feat
        self._found = {}

        def both(*arguments: Any) -> dict:
            outputs = peer.dense()
            theirs = (*outputs, *arguments[len(outputs):])  # of the same ground truths
            with replaced(head, loss_by_feat=own_losses):
                calls = [self.co_learning.ask(one, asked, len(step.samples))
                         for one, asked in ((head, arguments), (peer.model.bbox_head, theirs))]
            assignments, shares = self.co_learning.decide(*calls, compare=self._compares())
            found = []
            for one, losses, asked, call in ((head, own_losses, arguments, calls[0]),
                                             (peer.model.bbox_head, peer.model.bbox_head.loss_by_feat, theirs,
                                              calls[1])):
                with replay(one, assignments, targets=call[0].targets if call else None):
                    found.append(losses(*asked))
            self._found = {PEER_PREFIX + name: value for name, value in found[1].items()}
            self._names = list(self._found)
            if shares is not None:
                self._found['first_teaches'] = shares.first_teaches
                self._found['decisions'] = shares.first_teaches.new_tensor(float(shares.decisions))
                self._add(shares.agreement)
            return found[0]

        step.enter(replaced(head, loss_by_feat=both))

    def _compares(self) -> bool:
        """Whether this step is one in which the networks' own assignments are compared."""
        self._steps += 1
        return self.agreement_interval > 0 and (self._steps - 1) % self.agreement_interval == 0

    def _add(self, counts: Tensor | None) -> None:
        if counts is not None:
            self._agreement = counts if self._agreement is None else self._agreement + counts

    def take_agreement(self) -> Tensor:
        """Counts (4,) of :class:`kd_det.assignment.agreement.Agreement` since this was asked last, of this rank."""
        found, self._agreement = self._agreement, None
        return torch.zeros(4, dtype=torch.float64) if found is None else found

    def losses(self, step: Step) -> dict[str, Tensor]:
        found, self._found = self._found, {}
        return found

    def teaches(self) -> bool:
        return True

    def describe(self) -> list[str]:
        criterion = ', '.join(f'{key}={value}' for key, value in self.criterion_cfg.items() if key != 'type')
        per = dict(level='ground truth and pyramid level', object='ground truth', image='image')
        return [f'assignment: {self.criterion_cfg["type"]}({criterion}), one decision per '
                f'{per[self.co_learning.granularity]}; both networks receive it']
