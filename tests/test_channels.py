"""'auto' in a config: what the neck and the preprocessor take from the backbone."""
import pytest
import torch

from kd_det.channels import check_levels, feature_channels, fill_model
from kd_det.errors import ConfigError

RESNET = dict(type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(0, 1, 2, 3))
LITE0 = dict(type='TimmBackbone', model_name='tf_efficientnet_lite0', checkpoint='nowhere.pth')


@pytest.mark.parametrize('backbone, channels', [
    (RESNET, [8, 16, 32, 64]),
    (dict(RESNET, depth=50, out_indices=(1, 3)), [64, 256]),  # a bottleneck gives four times its width
    (dict(type='MobileNetV2', out_indices=(1, 2, 4, 6)), [24, 32, 96, 320]),
    (LITE0, [24, 40, 112, 320])])  # of the papers' tables
def test_channels_are_the_backbones(backbone, channels):
    before = torch.get_rng_state()
    assert feature_channels(backbone) == channels
    assert torch.equal(torch.get_rng_state(), before)  # a student's initial weights do not depend on 'auto'


def test_the_first_neck_of_several_is_filled_and_numbers_are_left_alone():
    model = dict(backbone=RESNET, neck=[dict(type='FPN', in_channels='auto'), dict(type='BFP', in_channels=256)])
    fill_model(model)
    assert [neck['in_channels'] for neck in model['neck']] == [[8, 16, 32, 64], 256]


def test_statistics_are_timms_in_the_preprocessors_channel_order(monkeypatch):
    from kd_det.backbones import TimmBackbone
    stats = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0])
    monkeypatch.setattr(TimmBackbone, 'input_statistics', classmethod(lambda cls, name: stats))
    for to_rgb, mean in ((True, [1.0, 2.0, 3.0]), (False, [3.0, 2.0, 1.0])):
        model = dict(backbone=LITE0, data_preprocessor=dict(mean='auto', std='auto', bgr_to_rgb=to_rgb))
        fill_model(model)
        assert model['data_preprocessor']['mean'] == mean


def test_without_a_backbone_to_ask_the_key_is_named():
    with pytest.raises(ConfigError, match=r'model\.neck\.in_channels'):
        fill_model(dict(neck=dict(type='FPN', in_channels='auto')))
    with pytest.raises(ConfigError, match='caffe'):
        fill_model(dict(backbone=dict(RESNET, style='caffe'), data_preprocessor=dict(mean='auto')))


def test_a_student_whose_backbone_is_swapped_by_an_option_is_filled_anew(run_config):
    from conftest import faster_rcnn_cfg

    from kd_det.config import load_config
    model = faster_rcnn_cfg()
    model.neck.in_channels = 'auto'
    path = run_config(model)
    assert load_config(path).model.neck.in_channels == [8, 16, 32, 64]
    assert load_config(path, {'model.backbone.base_channels': 4}).model.neck.in_channels == [4, 8, 16, 32]


@pytest.mark.parametrize('change, words', [
    ({'neck.in_channels': [8, 16, 32, 63]}, r'neck\.in_channels: found \[8, 16, 32, 63\], but the maps of '
                                            r'model\.backbone \(ResNet\) have \[8, 16, 32, 64\] channels'),
    ({'neck.in_channels': [8, 16, 32]}, r'neck\.in_channels: found \[8, 16, 32\]'),
    ({'backbone.depth': 19}, r'model\.backbone.*19'),
    ({'rpn_head.anchor_generator.strides': [4, 8]}, r'rpn_head\.anchor_generator\.strides: .* 2 levels, but '
                                                    r'model\.neck\.num_outs=')])
def test_numbers_that_hang_on_the_backbone_are_held_against_it_before_a_run(run_config, change, words):
    from conftest import faster_rcnn_cfg

    from kd_det.config import load_config
    from kd_det.engine.training import prepared_runner
    cfg = load_config(run_config(faster_rcnn_cfg()))
    check_levels(cfg.model)
    cfg.merge_from_dict({f'model.{key}': value for key, value in change.items()})
    with pytest.raises(ConfigError, match=words):
        prepared_runner(cfg)


def test_necks_that_take_maps_in_another_order_are_left_alone():
    check_levels(dict(backbone=RESNET, neck=dict(type='YOLOV3Neck', in_channels=[64, 32, 16])))
    check_levels(dict(backbone=RESNET, neck=None))


def test_a_backbone_of_which_nothing_is_known_is_left_to_its_own_words():
    """Of a package that is not imported here, or one that takes other images than three channels."""
    fpn = dict(type='FPN', in_channels=[8, 16], num_outs=4)
    check_levels(dict(backbone=dict(type='mmyolo.Elsewhere'), neck=fpn))
    check_levels(dict(backbone=dict(type='Elsewhere'), neck=fpn))
    check_levels(dict(backbone=dict(RESNET, in_channels=1), neck=fpn))
