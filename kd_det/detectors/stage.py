"""The distilled loss of one stage of Faster R-CNN: hard and soft classification, bounded regression."""
from mmdet.registry import MODELS
from torch import nn

from ..errors import ConfigError

STAGE_KEYS = {'hard_weight', 'reg_weight', 'cls', 'bbox'}


class StageDistillation(nn.Module):
    """The distilled loss of one stage (RPN or R-CNN)::

        L_cls = mu * CE(P_s, y) + (1 - mu) * L_soft(P_s, P_t)
        L_reg = lambda * (smoothL1(R_s, y) + nu * L_b(R_s, R_t, y))

    Args:
        hard_weight (float | None): mu in [0, 1]. The paper does not give it; 0.5 is ours. 1 without ``cls``.
        reg_weight (float): lambda, 1 in the paper.
        cls (dict | None): the soft loss, ``SoftTargetLoss`` with w_background 1.5 by default. None: off.
        bbox (dict | None): the box loss, ``TeacherBoundedLoss`` with nu = ``loss_weight`` = 0.5 by default. None: off.
        use_sigmoid (bool): how the student's head turns scores into probabilities; filled in by the distiller.
        key (str): the config key, for messages.

    A term of weight 0 is not computed. Source: Chen et al. 2017, eq. 1 to 5.
    """

    def __init__(self, hard_weight: float | None = None, reg_weight: float = 1.0, cls: dict | str | None = 'default',
                 bbox: dict | str | None = 'default', use_sigmoid: bool = False, key: str = 'rpn_distill') -> None:
        super().__init__()
        cls = dict(type='SoftTargetLoss', background_weight=1.5) if cls == 'default' else cls
        bbox = dict(type='TeacherBoundedLoss', margin=0.0, loss_weight=0.5) if bbox == 'default' else bbox
        off = cls is None or cls.get('loss_weight', 1) == 0
        self.hard_weight = (1.0 if off else 0.5) if hard_weight is None else float(hard_weight)
        self.reg_weight = float(reg_weight)
        if not 0 <= self.hard_weight <= 1:
            raise ConfigError(f'{key}.hard_weight: found {hard_weight}; mu is in [0, 1]')
        if self.reg_weight < 0:
            raise ConfigError(f'{key}.reg_weight: found {reg_weight}; lambda is not negative')
        if off and self.hard_weight != 1:
            raise ConfigError(f'{key}.hard_weight: {hard_weight} without a soft loss ({key}.cls={cls}) would only weaken '
                              'the ground truth; leave hard_weight out, or give a cls loss')
        if not off and 'use_sigmoid' in cls:
            raise ConfigError(f'{key}.cls.use_sigmoid: leave it out, it follows from the student\'s head '
                              f'({use_sigmoid})')
        self.cls = None if off or self.hard_weight == 1 else self._build(f'{key}.cls', {**cls, 'use_sigmoid': use_sigmoid})
        self.bbox = None
        if bbox is not None and bbox.get('loss_weight', 1) != 0 and self.reg_weight != 0:
            self.bbox = self._build(f'{key}.bbox', bbox)

    @staticmethod
    def _build(key: str, cfg: dict) -> nn.Module:
        try:
            return MODELS.build(cfg)
        except (TypeError, ValueError, KeyError) as error:
            raise ConfigError(f'{key}: {error}') from error

    @property
    def active(self) -> bool:
        return self.cls is not None or self.bbox is not None

    def describe(self) -> str:
        cls = f'{type(self.cls).__name__} ({self.cls.extra_repr()})' if self.cls is not None else 'off'
        bbox = f'{type(self.bbox).__name__} ({self.bbox.extra_repr()})' if self.bbox is not None else 'off'
        return f'hard_weight {self.hard_weight:g}, soft loss {cls}; reg_weight {self.reg_weight:g}, box loss {bbox}'
