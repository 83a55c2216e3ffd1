"""AP figures out of the names that MMDetection's metrics use."""
import math
from dataclasses import dataclass

from mmengine.config import Config

# Column -> how CocoMetric and VOCMetric call it, without the prefix that names the metric.
FIGURES = {
    'AP': ('bbox_mAP',),
    'AP50': ('bbox_mAP_50', 'AP50'),
    'AP75': ('bbox_mAP_75', 'AP75'),
    'APs': ('bbox_mAP_s',),
    'APm': ('bbox_mAP_m',),
    'APl': ('bbox_mAP_l',),
}
_CLASS_SUFFIX = '_precision'


@dataclass
class Accuracy:
    """Figures in percent; None where the data set has nothing to measure (COCO writes -1 or NaN).

    Attributes:
        figures (dict[str, float | None]): one for every column of :data:`FIGURES`.
        per_class (dict[str, float | None]): AP by class name; empty without ``classwise=True``.
    """
    figures: dict[str, float | None]
    per_class: dict[str, float | None]


def accuracy_of(record: dict, prefix: str = '') -> Accuracy | None:
    """Read an evaluation record; None if it holds no box AP at all.

    Args:
        record (dict): MMEngine's, e.g. ``{'coco/bbox_mAP': 0.457, 'coco/RBC_precision': 0.477}``.
        prefix (str): of the names that count, e.g. ``'peer/'``.
    """
    plain = {}
    for key, value in record.items():
        name = key.removeprefix(prefix)
        # not 'peer/coco/...' where the first network's is asked for
        if key.startswith(prefix) and name.count('/') <= 1:
            plain[name.split('/', 1)[-1]] = value
    figures = {}
    for column, names in FIGURES.items():
        value = next((plain[name] for name in names if name in plain), None)
        figures[column] = _percent(value)
    if not any(name in plain for names in FIGURES.values() for name in names):
        return None
    per_class = {key[:-len(_CLASS_SUFFIX)]: _percent(value) for key, value in plain.items()
                 if key.endswith(_CLASS_SUFFIX)}
    return Accuracy(figures, per_class)


def _percent(value: float | None) -> float | None:
    if value is None or not math.isfinite(value) or value < 0:
        return None
    return round(100 * value, 6)  # 0.457 is 45.7, not 45.699999999999996


def dataset_of(cfg: Config | None, split: str) -> str | None:
    """The annotation file that a config's ``val`` or ``test`` evaluation uses."""
    if cfg is None:
        return None
    evaluators = cfg.get(f'{split}_evaluator') or []
    for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
        if evaluator.get('ann_file'):
            return evaluator['ann_file']
    dataset = (cfg.get(f'{split}_dataloader') or {}).get('dataset') or {}
    return dataset.get('ann_file')
