"""How good a teacher is on images of the evaluation set, before training."""
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmdet.evaluation import CocoMetric
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import Runner

from ..random_state import cpu_random_state, set_cpu_random_state
from ..sources import RecordedTeacher


def why_not(runner: Runner, source: Any, classes: bool = True) -> str | None:
    """Why no AP of a teacher can be had; None where it can.

    Args:
        classes: whether the teacher has to know the classes of the evaluation set, in its order.
    """
    if runner.val_loop is None:
        return 'there is no evaluation set (val_dataloader)'
    if isinstance(source, RecordedTeacher) and len(source.shards):
        return f'its answers are recorded in {source.record.folder}'
    dataset = runner.val_loop.dataloader.dataset
    names = tuple(dataset.metainfo.get('classes') or ())
    if source.scale_factor != 1:
        return f'the evaluation set is of the student\'s resolution, the teacher sees {source.scale_factor} times it'
    if classes and source.classes is not None and tuple(source.classes) != names:
        return f'it knows the classes {tuple(source.classes)}, the evaluation set {names}'
    if not len(dataset) or not hasattr(dataset, 'get_data_info'):
        return f'{type(dataset).__name__} cannot be read image by image'
    return None


def evaluated(source: Any, dataset: Any, count: int, classes: list[int] | None = None, classwise: bool = False) -> dict:
    """COCO's figures of a teacher on ``count`` images spread evenly over a data set, shared between the processes.

    Args:
        source: a frozen teacher.
        dataset: of the evaluation; the student's pipeline reads it.
        count: a multiple of the number of processes, or all.
        classes: for each class of the teacher its place in the data set's list; None: the same list.
        classwise: AP by class too.

    Returns:
        As CocoMetric names them, ``coco/bbox_mAP``; empty where nothing was detected at all.
    """
    metric = CocoMetric(metric='bbox', classwise=classwise)
    metric.dataset_meta = dataset.metainfo
    with same_random_state(), torch.no_grad():
        for i in range(count)[get_rank()::get_world_size()]:
            _judge(metric, source, dataset, i * len(dataset) // count, classes)
        return metric.evaluate(count)


def aps_by_class(source: Any, dataset: Any, count: int, classes: list[int] | None = None) -> list[float | None]:
    """The AP of each class of the data set, arguments as for :func:`evaluated`; None: it has no object, or nothing was
    detected at all.
    """
    found = evaluated(source, dataset, count, classes, classwise=True)
    values = [found.get(f'coco/{name}_precision') for name in dataset.metainfo['classes']]
    return [None if value is None or not value >= 0 else float(value) for value in values]


def _judge(metric: CocoMetric, source: Any, dataset: Any, index: int, classes: list[int] | None) -> None:
    """One image's detections and ground truth, into ``metric``."""
    truth = dataset.get_data_info(index).get('instances', [])
    sample = source.network.test_step(pseudo_collate([dataset[index]]))[0]
    if classes is not None:
        labels = sample.pred_instances.labels
        sample.pred_instances.labels = torch.tensor(classes, device=labels.device)[labels]
    metric.process({}, [dict(sample.to_dict(), instances=truth)])


@contextmanager
def same_random_state() -> Iterator[None]:
    """Leaves the random states of Python, NumPy and PyTorch, on every device, as they were."""
    before = cpu_random_state()
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        set_cpu_random_state(before)
