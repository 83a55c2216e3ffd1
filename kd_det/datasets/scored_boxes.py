"""Ground truth that may be wrong: boxes that carry their scores through a pipeline, as pseudo-labels have them."""
import copy
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmdet.datasets import CocoDataset
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.dataset import Compose
from torch import Tensor

from ..errors import ConfigError, DataError


class ScoredBoxes(HorizontalBoxes):
    """Boxes (B, 4) with ``scores`` (B,), which stay with their boxes when a transform picks, orders or joins boxes."""

    scores: Tensor | None = None

    @classmethod
    def of(cls, boxes: HorizontalBoxes, scores: Sequence[float]) -> 'ScoredBoxes':
        found = cls(boxes.tensor, clone=False)
        found.scores = torch.as_tensor(scores, dtype=torch.float32)
        return found

    def __getitem__(self, index: Any) -> 'ScoredBoxes':
        found = super().__getitem__(index)
        if self.scores is not None:
            index = torch.as_tensor(index) if isinstance(index, np.ndarray) else index
            found.scores = self.scores[index].reshape(-1)
        return found

    @classmethod
    def cat(cls, box_list: Sequence['ScoredBoxes'], dim: int = 0) -> 'ScoredBoxes':
        found = super().cat(box_list, dim)
        if all(isinstance(boxes, cls) and boxes.scores is not None for boxes in box_list):
            found.scores = torch.cat([boxes.scores for boxes in box_list])
        return found

    def clone(self) -> 'ScoredBoxes':
        return copy.deepcopy(self)


class ScoredCocoDataset(CocoDataset):
    """``CocoDataset`` that hands out each annotation's ``score`` as ``gt_instances.scores`` (B,); 1 where it has none.

    What reads them: :class:`kd_det.engine.score_weight_hook.ScoreWeightHook`. Transforms that move boxes, pick some or
    join those of several images keep them.

    Raises:
        ConfigError: a pipeline without ``LoadAnnotations`` and ``PackDetInputs``; a transform that makes boxes anew.
        DataError: a score that is no number in [0, 1].
    """

    def __init__(self, *args: Any, pipeline: list = (), **dataset: Any) -> None:
        super().__init__(*args, pipeline=pipeline, **dataset)
        names = [str(step['type']).rsplit('.', 1)[-1] if isinstance(step, dict) else type(step).__name__
                 for step in pipeline]
        if pipeline:
            for name in ('LoadAnnotations', 'PackDetInputs'):
                if name not in names:
                    raise ConfigError(f'ScoredCocoDataset.pipeline: found {names}; {name} is missing, beside which '
                                      'scores are read and written')
            steps = list(self.pipeline.transforms)
            steps.insert(names.index('PackDetInputs') + 1, _written)
            steps.insert(names.index('LoadAnnotations') + 1, _read)
            self.pipeline = Compose(steps)

    def parse_data_info(self, raw_data_info: dict) -> dict | list[dict]:
        info = super().parse_data_info(raw_data_info)
        # annotations that were left out are not among the instances
        waiting: dict[tuple, list[float]] = defaultdict(list)
        for note in raw_data_info['raw_ann_info']:
            score = note.get('score', 1.0)
            if isinstance(score, bool) or not isinstance(score, (int, float)) or not 0 <= score <= 1:
                raise DataError(f'{self.ann_file}: annotation {note.get("id")} has the score {score!r}; a number in '
                                '[0, 1] is expected')
            x, y, w, h = note['bbox']
            waiting[x, y, x + w, y + h, self.cat2label.get(note['category_id'])].append(float(score))
        for instance in info['instances']:
            instance['score'] = waiting[(*instance['bbox'], instance['bbox_label'])].pop(0)
        return info


def _read(results: dict) -> dict:
    """After ``LoadAnnotations``: boxes and annotations are in one order."""
    results['gt_bboxes'] = ScoredBoxes.of(results['gt_bboxes'], [one['score'] for one in results.get('instances', [])])
    return results


def _written(packed: dict) -> dict:
    """After ``PackDetInputs``."""
    for name in ('gt_instances', 'ignored_instances'):
        instances = packed['data_samples'].get(name)
        boxes = None if instances is None else instances.get('bboxes')
        if boxes is None:
            continue
        scores = getattr(boxes, 'scores', None)
        if scores is None or len(scores) != len(boxes):
            raise ConfigError('ScoredCocoDataset.pipeline: a transform makes boxes anew, so that their scores are '
                              'lost; use transforms that move boxes, pick some, or join those of several images')
        instances.scores = scores
    return packed
