"""Teachers of other classes and students, as files; commands that run in this process."""
from pathlib import Path

from conftest import RUN_CONFIG, build, faster_rcnn_cfg, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.logging import MMLogger

FOREIGN = ('a', 'b', 'c')


def model_of(kind, width, classes):
    if kind == 'faster':
        return faster_rcnn_cfg(width, num_classes=classes)
    return dense_cfg(kind, width, num_classes=classes)


def write_config(path: Path, model) -> str:
    """A complete config on a data set that is not there."""
    path.write_text(RUN_CONFIG.format(root='nowhere/', model=model.to_dict()))
    return str(path)


def make_pair(folder: Path, kind: str, classes=FOREIGN) -> tuple[str, str, str]:
    """(teacher's config, its checkpoint, student's config)."""
    teacher = model_of(kind, 16, len(classes))
    config = write_config(folder / f'{kind}_teacher.py', teacher)
    checkpoint = save_checkpoint(build(model_of(kind, 16, len(classes)), seed=7), folder / f'{kind}.pth', classes)
    return config, checkpoint, write_config(folder / f'{kind}_student.py', model_of(kind, 8, 7))


def in_process(words, log, report):
    """``kd-det`` in this process: the seconds of importing are saved."""
    from kd_det.cli.main import main
    Path(log).write_text('Epoch(train)   [1][ 1/9]  lr: 1e-3  eta: 0:00:07  time: 1\n')
    report()
    try:
        return main(list(words))
    finally:
        MMLogger._instance_dict.clear()
