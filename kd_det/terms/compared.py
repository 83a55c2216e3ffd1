"""Losses of terms: built from a config, and of the right kind."""
import inspect
from typing import Any

from mmdet.registry import MODELS
from torch import nn

from ..arguments import non_negative
from ..build import build, checked
from ..errors import ConfigError

# losses of other packages that compare a student with a teacher
FOREIGN = {'KnowledgeDistillationKLDivLoss': 'scores', 'KDQualityFocalLoss': 'scores', 'L2Loss': 'features',
           'MSELoss': 'features', 'L1Loss': 'features', 'SmoothL1Loss': 'features'}
SOFTMAX = ('KnowledgeDistillationKLDivLoss',)
"""Of these, which turn scores into probabilities by a softmax, whatever the head does."""
BOXES = ('IoULoss', 'BoundedIoULoss', 'GIoULoss', 'DIoULoss', 'CIoULoss', 'EIoULoss', 'SIoULoss')


def is_off(cfg: Any) -> bool:
    """Whether a loss config means that there is none: None, or of weight 0, which is not computed."""
    return cfg is None or (isinstance(cfg, dict) and isinstance(weight := cfg.get('loss_weight', 1), (int, float))
                           and weight == 0)


def build_loss(key: str, cfg: dict, default: str | dict, kind: str | tuple[str, ...], **filled: Any) -> nn.Module:
    """A loss that compares what the term has to compare.

    Args:
        key (str): the config key.
        cfg: its config; without ``type`` the default's is meant.
        default: type, or the whole dict.
        kind (str): 'scores' (logits with a teacher's logits), 'boxes' (encoded boxes, teacher's and target),
            'decoded boxes' (an IoU loss), 'features', 'distributions'. A tuple: any of these.
        **filled: what follows from the heads, such as ``use_sigmoid``; left out where the loss does not take it.

    Raises:
        ConfigError: unknown type or keys, values out of range, a loss that compares something else, or by a softmax
            where ``use_sigmoid=True`` is filled in.
    """
    weight = cfg.get('loss_weight') if isinstance(cfg, dict) else None
    if weight is not None:
        checked(f'{key}.loss_weight', non_negative, weight)
    loss = build(key, cfg, MODELS, default, **filled)
    found = compared_by(loss)
    kinds = (kind,) if isinstance(kind, str) else kind
    if found not in kinds:
        what = f'compares {found}' if found else 'does not compare a student with a teacher'
        raise ConfigError(f'{key}.type: {type(loss).__name__} {what}; a loss that compares {" or ".join(kinds)} is '
                          f'expected, such as {default if isinstance(default, str) else default["type"]}')
    if filled.get('use_sigmoid') and type(loss).__name__ in SOFTMAX:
        raise ConfigError(f'{key}.type: {type(loss).__name__} compares by a softmax, and this head scores with a '
                          'sigmoid; over the one column of an RPN it would be 0 for ever. '
                          f'{default if isinstance(default, str) else default["type"]} takes both')
    return loss


def compared_by(loss: nn.Module) -> str | None:
    """What a loss compares: its attribute ``compares``, or, of other packages, the tables above; None: unknown."""
    own = getattr(loss, 'compares', None)
    if own is not None:
        return own
    name = type(loss).__name__
    if name in BOXES:
        return 'decoded boxes'
    if name in FOREIGN:
        return FOREIGN[name]
    second = list(inspect.signature(loss.forward).parameters)[1:2]  # a loss of the user's own says it by its signature
    if second and second[0].startswith(('teacher', 'soft_label')):
        return 'boxes' if 'box' in second[0] else 'scores'
    return None
