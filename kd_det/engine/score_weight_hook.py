"""Training on ground truth that has scores."""
from contextlib import ExitStack
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..arguments import positive
from ..build import checked
from ..errors import ConfigError
from ..heads.score_weights import weighed_by_score
from .distill_hook import distiller_of

LOOKED_AT = 50
"""Batches in which at least one score must be."""


class ScoreWeightHook(Hook):
    """``custom_hooks=[dict(type='ScoreWeightHook')]``: each object's loss counts its annotation's score.

    Pseudo-labels carry the teacher's score; :class:`kd_det.datasets.scored_boxes.ScoredCocoDataset` reads it. See
    :func:`kd_det.heads.score_weights.weighed_by_score` for the formula and the heads that it reaches. The model's
    config stays the plain one.

    Args:
        power (float): above 0; of the score. 2 trusts middling boxes less.

    Raises:
        ConfigError: a head that cannot be weighed; data without scores.
    """

    def __init__(self, power: float = 1.0) -> None:
        self.power = float(checked('ScoreWeightHook.power', positive, power))
        self._stack = ExitStack()
        self._left = LOOKED_AT

    def before_train(self, runner: Runner) -> None:
        self._stack.enter_context(weighed_by_score(distiller_of(runner), self.power))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not self._left:
            return
        samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
        if any('scores' in sample.gt_instances for sample in samples or []):
            self._left = 0
            return
        self._left -= 1
        if not self._left:
            raise ConfigError(f'ScoreWeightHook: no object of {LOOKED_AT} batches has a score, so that it does '
                              'nothing; train_dataloader.dataset.type=\'ScoredCocoDataset\' reads the scores of '
                              'pseudo-labels')

    def after_train(self, runner: Runner) -> None:
        self._stack.close()
