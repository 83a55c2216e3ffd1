"""MMEngine's TensorBoard backend: losses of task and distillation and AP arrive in its event files."""
import pytest
from conftest import faster_rcnn_cfg, run_tool

BACKEND = """
visualizer = dict(type='DetLocalVisualizer', name='visualizer',
                  vis_backends=[dict(type='LocalVisBackend'), dict(type='TensorboardVisBackend')])
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
"""


def test_losses_and_ap_are_in_the_event_file(run_config, teacher_checkpoint, tmp_path):
    pytest.importorskip('tensorboard', reason='pip install tensorboard')
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    config, checkpoint = teacher_checkpoint
    model = faster_rcnn_cfg()
    model.update(type='FasterRCNNDistiller', student_type='FasterRCNN', hints=[dict(layer='neck')],
                 teacher=dict(config=config.to_dict(), checkpoint=checkpoint, check=0))
    run_tool('train', run_config(model, extra=BACKEND), '--work-dir', str(tmp_path / 'run'))
    events = list((tmp_path / 'run').glob('*/vis_data/events.out.tfevents.*'))
    assert len(events) == 1
    found = EventAccumulator(str(events[0]))
    found.Reload()
    scalars = found.Tags()['scalars']
    assert {'loss', 'loss_cls', 'loss_hint_neck', 'coco/bbox_mAP'} <= set(scalars)
    assert [point.step for point in found.Scalars('loss_hint_neck')] == [1, 2]
