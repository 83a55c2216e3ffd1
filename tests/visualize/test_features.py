"""Maps in the pictures are the layers' own, before and behind the adapter, without padding."""
import pytest
import torch
from conftest import faster_rcnn_cfg
from scenes import photo, taught

from kd_det.errors import CompareError
from kd_det.visualize import features, positives


@pytest.fixture
def found(tmp_path):
    return taught(faster_rcnn_cfg(), faster_rcnn_cfg(width=16, channels=24), tmp_path, terms=[
        dict(type='Hint', layer='neck'), dict(type='Hint', layer='rpn_head.rpn_conv', name='rpn'),
        dict(type='Hint', layer='roi_head.bbox_head.shared_fcs.1')])


def test_reductions_by_hand():
    level = torch.tensor([[[[3.]], [[-4.]]]])  # (1, 2, 1, 1)
    assert features.reduced(level, 'norm').item() == pytest.approx((12.5)**0.5)
    assert features.reduced(level, 'mean').item() == -0.5


def test_maps_are_the_networks_own(found, tmp_path):
    sample, one = photo(tmp_path)
    hints = features.hints_of(found)
    assert [hint.layer for hint in hints] == ['neck', 'rpn_head.rpn_conv']  # vectors are no maps
    maps = list(features.maps_of(found, hints[0], sample, one, 'mean'))
    inputs, _ = positives.inputs_of(found, sample, one)
    with torch.no_grad():
        ours, theirs = found.model.extract_feat(inputs), found.model.sources['teacher'].model.extract_feat(inputs)
        behind = hints[0].adapters[1](ours[1], target_size=tuple(theirs[1].shape[2:]))
    assert len(maps) == 5
    for k, level in enumerate((ours[1], behind, theirs[1])):
        assert torch.allclose(maps[1][k], level[0].mean(0), atol=1e-5)
    assert len(list(features.maps_of(found, hints[1], sample, one, 'norm'))) == 5
    assert features.picture(found, hints[0], sample, one, 100).height > 5 * 70


def test_padding_is_cut_off(found, tmp_path):
    sample, one = photo(tmp_path, size=(100, 256))  # seen as 50 x 128, padded to 64 x 128
    first = next(iter(features.maps_of(found, features.hints_of(found)[0], sample, one, 'norm')))
    assert first[0].shape == first[2].shape == (12, 32)  # of 16 rows, 50 / 64


def test_without_hints_it_is_said(tmp_path):
    bare = taught(faster_rcnn_cfg(), faster_rcnn_cfg(width=16), tmp_path, 'FasterRCNNDistiller', rcnn_distill=dict())
    with pytest.raises(CompareError, match='none of its terms is a hint on feature maps'):
        features.hints_of(bare)
