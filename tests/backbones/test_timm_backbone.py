"""timm models as backbones: the same maps as the whole network's, frozen stages, strict weights, every refusal."""
import pytest
import torch

from kd_det.errors import CheckpointMismatch, ConfigError

timm = pytest.importorskip('timm', reason='timm is not installed (extra [timm])')

from kd_det.backbones import TimmBackbone, TimmMaps  # noqa: E402
from kd_det.backbones.timm_stages import covering  # noqa: E402

SMALL_SWIN = dict(embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1))
MODELS = {'test_resnet': {}, 'test_efficientnet': {}, 'test_convnext': {}, 'test_vit': {},
          'swin_tiny_patch4_window7_224': SMALL_SWIN}
"""Flattened names, own extractor class, flattened names of strides 4 to 32, one stride, maps (N, h, w, C)."""


def backbone(name: str, **arguments) -> TimmBackbone:
    torch.manual_seed(0)
    return TimmBackbone(name, model_args=MODELS.get(name), **arguments)


@pytest.fixture
def classifier_file(tmp_path):
    """Saves a whole classification network with every number changed; returns it and the file."""
    def save(name: str, suffix: str = '.pth'):
        torch.manual_seed(1)
        model = timm.create_model(name, **MODELS[name], num_classes=7)
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(0.05 * torch.rand_like(value))
        path = tmp_path / f'{name}{suffix}'
        if suffix == '.safetensors':
            from safetensors.torch import save_file
            save_file(model.state_dict(), path)
        else:
            torch.save(dict(state_dict=model.state_dict()), path)
        return model.eval(), str(path)
    return save


@pytest.mark.parametrize(('name', 'suffix'), [*((name, '.pth') for name in MODELS), ('test_convnext', '.safetensors')])
def test_maps_are_those_of_the_whole_network(name, suffix, classifier_file):
    whole, path = classifier_file(name, suffix)
    ours = backbone(name, checkpoint=path)
    ours.init_weights()
    images = torch.rand(2, 3, *(timm.get_pretrained_cfg(name).input_size[1:]))
    with torch.no_grad():
        maps = ours.eval()(images)
        _, theirs = whole.forward_intermediates(images, norm=False)
    by_shape = {tuple(one.shape): one for one in theirs}  # the last one of each stride
    assert [one.shape[1] for one in maps] == list(ours.out_channels)
    assert [images.shape[-1] // one.shape[-1] for one in maps] == list(ours.strides)
    for one in maps:
        torch.testing.assert_close(one, by_shape[tuple(one.shape)])


@pytest.mark.parametrize('name', MODELS)
def test_images_of_any_size(name):
    model = backbone(name).eval()
    with torch.no_grad():
        for one, stride in zip(model(torch.rand(1, 3, 96, 160)), model.strides):
            assert one.shape[-2:] == (96 // stride, 160 // stride) or name.startswith('swin')
            assert abs(one.shape[-2] - 96 / stride) < 1 and abs(one.shape[-1] - 160 / stride) < 1


@pytest.mark.parametrize(('name', 'stages', 'parts'), [
    ('test_resnet', 0, {'conv1', 'bn1'}), ('test_resnet', 2, {'conv1', 'bn1', 'layer1', 'layer2'}),
    ('test_convnext', 0, {'stem_0', 'stem_1'}), ('test_convnext', 1, {'stem_0', 'stem_1', 'stages_0'}),
    ('swin_tiny_patch4_window7_224', 0, {'patch_embed'}),
    ('swin_tiny_patch4_window7_224', 1, {'patch_embed', 'layers_0'})])
def test_frozen_stages_get_no_gradient_and_stay_in_eval_mode(name, stages, parts):
    model = backbone(name, frozen_stages=stages, norm_eval=False).train()
    sum(one.square().sum() for one in model(torch.rand(2, 3, 64, 64))).backward()
    frozen = {key.split('.')[0] for key, p in model.timm_model.named_parameters() if p.grad is None}
    trained = {key.split('.')[0] for key, p in model.timm_model.named_parameters() if p.grad is not None}
    assert frozen == parts and not frozen & trained
    for key, module in model.timm_model.named_modules():
        if key and list(module.parameters()):
            assert module.training == (key.split('.')[0] not in parts), key


def test_batch_norms_keep_their_statistics_with_norm_eval():
    for norm_eval in (True, False):
        model = backbone('test_efficientnet', norm_eval=norm_eval).train()
        before = model.timm_model.bn1.running_mean.clone()
        model(torch.rand(2, 3, 64, 64))
        assert torch.equal(before, model.timm_model.bn1.running_mean) == norm_eval
        assert model.timm_model.bn1.weight.requires_grad


def test_stages_behind_the_last_map_are_left_out():
    every, fewer = backbone('test_efficientnet'), backbone('test_efficientnet', out_indices=(1, 2), norm_eval=False)
    assert len(fewer.timm_model.blocks) < len(every.timm_model.blocks)
    sum(one.sum() for one in fewer(torch.rand(2, 3, 64, 64))).backward()
    assert all(p.grad is not None for p in fewer.parameters())


@pytest.mark.parametrize(('name', 'arguments'), [
    ('test_efficientnet', dict(out_indices=(1, 2), frozen_stages=1)), ('test_convnext', dict(frozen_stages=0)),
    ('test_vit', dict(out_indices=(0, 1), frozen_stages=2)),
    ('swin_tiny_patch4_window7_224', dict(frozen_stages=4, norm_eval=False))])
def test_what_was_found_out_makes_the_same_network(name, arguments):
    """Of a student that is exported: keys, maps, what is trained, and which modules stay in eval mode."""
    model = backbone(name, **arguments).train()
    alone = TimmMaps(**model.resolved).train()
    alone.load_state_dict(model.state_dict(), strict=True)
    assert alone.out_channels == model.out_channels and alone.strides == model.strides
    assert [p.requires_grad for p in alone.parameters()] == [p.requires_grad for p in model.parameters()]
    assert [one.training for one in alone.modules()] == [one.training for one in model.modules()]
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert all(map(torch.equal, alone.eval()(images), model.eval()(images)))


def test_the_shortest_list_of_frozen_modules():
    net = torch.nn.ModuleDict(dict(a=torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)),
                                   b=torch.nn.BatchNorm1d(1), drop=torch.nn.Dropout()))
    assert covering(net, {'a.0.weight', 'a.0.bias', 'a.1.bias'}) == ('a.0', 'a.1.bias')
    assert covering(net, {'a.0.weight', 'a.0.bias', 'a.1.bias', 'a.1.weight'}) == ('a',)
    assert covering(net, dict(net.named_parameters())) == ('a', 'b', 'drop')
    assert covering(net, ()) == ()


def test_every_trained_parameter_gets_a_gradient():
    for name in MODELS:
        model = backbone(name, norm_eval=False).train()
        sum(one.square().sum() for one in model(torch.rand(2, 3, 64, 64))).backward()
        assert {key for key, p in model.named_parameters() if p.requires_grad} == {
            key for key, p in model.named_parameters() if p.grad is not None}


def test_a_file_that_does_not_fit_is_refused_whole(classifier_file, tmp_path):
    whole, _ = classifier_file('test_resnet')
    state = whole.state_dict()
    bad = {'missing': {k: v for k, v in state.items() if k != 'layer2.0.conv1.weight'},
           'unexpected': {**state, 'layer9.weight': torch.zeros(1)},
           'shape': {**state, 'conv1.weight': torch.zeros(5, 3, 3, 3)}}
    named = {'missing': 'layer2.0.conv1.weight', 'unexpected': 'layer9.weight', 'shape': 'conv1.weight'}
    for what, content in bad.items():
        torch.save(content, tmp_path / f'{what}.pth')
        model = backbone('test_resnet', checkpoint=str(tmp_path / f'{what}.pth'))
        before = {k: v.clone() for k, v in model.state_dict().items()}
        with pytest.raises(CheckpointMismatch, match=named[what]) as caught:
            model.init_weights()
        assert str(tmp_path / f'{what}.pth') in str(caught.value)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_weights_of_another_model_are_refused(classifier_file):
    _, path = classifier_file('test_resnet')
    with pytest.raises(CheckpointMismatch, match='keys missing'):
        backbone('test_efficientnet', checkpoint=path).init_weights()


def test_a_file_that_is_not_there_is_named_when_training_begins_only():
    model = backbone('test_resnet', checkpoint='no/such.pth')  # inference with a trained detector needs no such file
    with pytest.raises(CheckpointMismatch, match=r"no/such\.pth"):
        model.init_weights()


def test_a_file_with_code_is_refused(tmp_path):
    import os
    import pickle

    from kd_det.compat.checkpoint import UnsafeCheckpointError

    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / 'ran'),)
    torch.save({'state_dict': {'conv1.weight': Bad()}}, tmp_path / 'bad.pth', pickle_module=pickle)
    with pytest.raises(UnsafeCheckpointError):
        backbone('test_resnet', checkpoint=str(tmp_path / 'bad.pth')).init_weights()
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(('arguments', 'said'), [
    (dict(model_name='tf_efficientnet_lite9'), "did you mean 'tf_efficientnet_lite"),
    (dict(model_name='test_resnet', out_indices=(1, 7)), 'maps 0 to 4'),
    (dict(model_name='test_resnet', frozen_stages=5), 'has 4 stages'),
    (dict(model_name='test_resnet', model_args=dict(depht=3)), 'depht'),
    (dict(model_name='test_resnet', pretrained=True, checkpoint='x.pth'), 'contradict'),
    (dict(model_name='test_resnet', init_cfg=dict(type='Pretrained', checkpoint='x.pth')), 'use checkpoint=FILE'),
])
def test_what_cannot_be_meant_is_refused(arguments, said):
    with pytest.raises(ConfigError, match=said):
        TimmBackbone(**arguments)


def test_without_timm_the_pip_line_is_named(monkeypatch):
    import sys
    monkeypatch.setitem(sys.modules, 'timm', None)
    with pytest.raises(ConfigError, match='pip install timm'):
        TimmBackbone('test_resnet')


def test_a_model_of_one_size_says_so(monkeypatch):
    from kd_det.backbones import timm_backbone
    said = []
    monkeypatch.setattr(timm_backbone, 'print_log', lambda text, *args, **kwargs: said.append(text))
    TimmBackbone('test_vit')
    assert not said
    TimmBackbone('test_vit', model_args=dict(dynamic_img_size=False))
    assert len(said) == 1 and 'takes images of 160x160 pixels' in said[0]


@pytest.mark.parametrize(('name', 'channels'), [('lite0', (24, 40, 112, 320)), ('lite2', (24, 48, 120, 352))])
def test_image_net_weights_load_whole(name, channels, pytestconfig):
    path = pytestconfig.rootpath.parent / f'shared/data/pretrained/tf_efficientnet_{name}_imagenet.pth'
    if not path.is_file():
        pytest.skip(f'{path} is not there')
    model = TimmBackbone(f'tf_efficientnet_{name}', checkpoint=str(path), frozen_stages=1)
    before = model.timm_model.conv_stem.weight.clone()
    model.init_weights()
    assert model.out_channels == channels
    assert not torch.equal(before, model.timm_model.conv_stem.weight)
    assert TimmBackbone.input_statistics(f'tf_efficientnet_{name}') == dict(mean=[127.5] * 3, std=[127.5] * 3)
