"""Every registered loss with arguments of the kind that it says it compares; a new one is found by itself."""
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import kd_det.losses

CHANNELS = 4
VARIANTS = {
    'SoftTargetLoss': [dict(), dict(use_sigmoid=True), dict(kl=True, temperature=3.0)],
    'LogitMatchingLoss': [dict(), dict(use_sigmoid=True)],
    'FocalKLLoss': [dict(), dict(use_sigmoid=False), dict(gamma=0.0)],
    'ModulatedBCELoss': [dict(), dict(beta=2.0)],
    'TeacherBoundedLoss': [dict(), dict(inner='l1'), dict(inner='smooth_l1', margin=0.5)],
    'HintLoss': [dict(), dict(norm='l1'), dict(scale_free=False)],
    'CWDLoss': [dict(), dict(standardise=True, loss_weight=1.0), dict(temperature=4.0)],
    'DistributionKLLoss': [dict(), dict(temperature=1.0)],
}
LOSSES: dict[str, Callable[[], nn.Module]] = {}
for _name in kd_det.losses.__all__:
    if _name.endswith('Loss'):
        for _changes in VARIANTS.get(_name, [dict()]):
            _cls = getattr(kd_det.losses, _name)
            _filled = dict(channels=CHANNELS) if getattr(_cls, 'needs_channels', False) else {}
            _label = _name + ''.join(f', {key}={value}' for key, value in _changes.items())
            LOSSES[_label] = lambda cls=_cls, arguments={**_filled, **_changes}: cls(**arguments)


def arguments(loss: nn.Module, values: Callable[..., Tensor], rows: int = 6) -> tuple[list[Tensor], dict]:
    """(tensors of student, teacher ..., keyword arguments) of a loss; ``values(*shape)`` makes each tensor."""
    kind = loss.compares
    if kind == 'scores':
        return [values(rows, 5) for _ in range(2)], {}
    if kind == 'distributions':
        return [values(rows, 4, 8) for _ in range(2)], {}
    if kind == 'boxes':
        return [values(rows, 4) for _ in range(3)], {}
    if kind == 'features' and type(loss).__name__ == 'CosineLoss':
        return [values(rows, CHANNELS) for _ in range(2)], {}
    if kind == 'features':
        images = min(rows, 2)
        more = {}
        if getattr(loss, 'needs_boxes', False):
            corner = torch.tensor([[0.0, 0.0, 20.0, 12.0], [10.0, 8.0, 60.0, 40.0]])
            more = dict(boxes=[corner[:count] for count in (2, 0)[:images]], canvas=(48, 64))
        return [values(images, CHANNELS, 6, 8) for _ in range(2)], more
    pytest.skip(f'{type(loss).__name__} compares {kind!r}, of which no arguments are made here')
