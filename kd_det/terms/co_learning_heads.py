"""Two networks, one label assignment: per decision a criterion says whose costs assign for both.

How a head is asked for its costs, and what is made of the costs of two heads:

=======  ====================================================  =======================================
head     candidates of an object, and their costs              what the chosen costs go through
=======  ====================================================  =======================================
PAA      anchors of the first assignment (IoU >= 0.1);         nine per level, one mixture per object,
         focal + 1.3 (1 - GIoU), ``get_pos_loss``              all of the batch in one fit
RTMDet   priors in its box, within ``soft_center_radius``      ``dynamic_k_matching``: the chosen
         strides of its centre, whose cost is finite (if       network's IoUs say how many, a prior
         there is none: without the box, then without the      claimed twice goes to the lower cost
         radius); ``cost_matrix``
=======  ====================================================  =======================================

RTMDet adds 10^(distance in strides - radius) to its costs, alike in both networks. Beyond the radius
it outgrows whatever the networks say, so there a criterion would compare geometry with itself. Priors
of its neighbours have costs too, where both networks' boxes miss the object and the IoU's part is one
constant, -3 log(1e-7); they would drown the others.
"""
from mmdet.models.dense_heads import DDODHead, PAAHead
from mmdet.models.task_modules.assigners import DynamicSoftLabelAssigner, SimOTAAssigner, TaskAlignedAssigner
from torch import nn

from ..assignment.co_learning_paa import PAACoLearning
from ..assignment.co_learning_rtmdet import RTMDetCoLearning
from ..assignment.co_learning_step import Criterion
from ..assignment.dynamic import dynamic_assigners
from ..errors import ConfigError
from ..heads.batched_paa import BatchedPAAHead

REFUSED_ASSIGNERS: tuple[tuple[type, str], ...] = (
    (SimOTAAssigner, 'its costs carry a constant of 1e5 outside the objects\' centres, so std / mean and Fisher would '
                     'say how many candidates lie outside, not how well a network tells them apart'),
    (TaskAlignedAssigner, 'it ranks by score^alpha * IoU^beta, where higher is better and most candidates are near 0; '
                          'any map to costs sets the scale that std / mean and Fisher depend on'),
)
DDOD_REASON = ('it assigns classes and boxes apart, by a metric where higher is better; any map to costs sets the '
               'scale that std / mean and Fisher depend on')


def co_learning(heads: tuple[nn.Module, nn.Module], criterion: Criterion,
                granularity: str | None) -> PAACoLearning | RTMDetCoLearning:
    """How these two heads learn from one assignment.

    Args:
        heads: the first and the second network's.
        criterion: ``criterion(costs (2, A), cells (A,), num_cells)`` -> mask (num_cells,), first assigns.
        granularity: what one decision is about: 'level' (an object's candidates on one pyramid level), 'object' or
            'image'. None: 'level' for PAA, 'object' for RTMDet.

    Raises:
        ConfigError: heads that do not decide alike, or whose decisions have no costs that can be compared.
    """
    kinds = [_kind(head, key) for head, key in zip(heads, ('bbox_head', 'peer.config: bbox_head'))]
    if kinds[0] is not kinds[1]:
        raise ConfigError(f'peer.config: {type(heads[1]).__name__} assigns otherwise than the first network\'s '
                          f'{type(heads[0]).__name__}; two heads of one kind are needed')
    kind = kinds[0]
    if granularity is not None and granularity not in kind.granularities:
        raise ConfigError(f'granularity: found {granularity!r}; {type(heads[0]).__name__} knows '
                          f'{", ".join(map(repr, kind.granularities))}')
    return kind(heads, criterion, granularity or kind.granularities[0])


def _kind(head: nn.Module, key: str) -> type:
    name = type(head).__name__
    assigners = dynamic_assigners(head)
    if isinstance(head, PAAHead):
        own = type(head)
        if own.paa_reassign not in (PAAHead.paa_reassign, BatchedPAAHead.paa_reassign) \
                or own.gmm_separation_scheme is not PAAHead.gmm_separation_scheme:
            raise ConfigError(f'{key}: {name} separates positives in a way of its own, which CoLAD would not use; '
                              'BatchedPAAHead, PAAHead or COPHead is expected')
        if head.covariance_type == 'tied':
            raise ConfigError(f'{key}.covariance_type: found \'tied\'; \'diag\', \'full\' or \'spherical\' (one model '
                              'in one dimension) is expected')
        return PAACoLearning
    if isinstance(head, DDODHead):
        raise ConfigError(f'{key}: CoLAD is not possible with {name}: {DDOD_REASON}. LADDistiller works with it')
    for assigner in assigners.values():
        for cls, reason in REFUSED_ASSIGNERS:
            if isinstance(assigner, cls):
                raise ConfigError(f'{key}: CoLAD is not possible with {name}: {reason}. LADDistiller works with it')
    if len(assigners) == 1 and isinstance(next(iter(assigners.values())), DynamicSoftLabelAssigner):
        return RTMDetCoLearning
    raise ConfigError(f'{key}: CoLAD does not know the costs of {name}; PAAHead, BatchedPAAHead, COPHead and heads '
                      'with DynamicSoftLabelAssigner (RTMDet) are supported')
