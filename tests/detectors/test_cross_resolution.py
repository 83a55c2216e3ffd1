"""FasterRCNNDistiller with a teacher that sees each image at a multiple of the student's resolution."""
import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint
from test_faster_rcnn import ALL, distil_cfg

from kd_det.errors import ConfigError


def test_cross_resolution_levels_are_matched_by_relative_stride(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, scale_factor=2, **ALL), 1)
    assert model.terms[0].levels == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert model.terms[-1].pairs == [(0, 1), (1, 2), (2, 3), (3, 4)]
    plan = '\n'.join(model.plan())
    assert 'student stride 4 <- teacher stride 8' in plan and 'student strides [64] have no partner' in plan \
        and 'teacher strides [4] have no partner' in plan
    batch = make_batch(teacher_scale=2)
    losses = losses_of(model, batch)
    assert all(torch.isfinite(torch.as_tensor(losses[name])) for name in model.distill_terms)
    plain = losses_of(build(faster_rcnn_cfg(), 1), make_batch())
    # the level without a partner keeps its hard term whole, the others weigh it by mu
    assert torch.equal(losses['loss_rpn_cls'][4], plain['loss_rpn_cls'][4])
    assert torch.allclose(losses['loss_rpn_cls'][0], 0.5 * plain['loss_rpn_cls'][0])


def test_cross_resolution_features_and_anchors_line_up_to_the_pixel(teacher_checkpoint):
    """A white square at known pixels excites the same cells in both views, and the anchors there cover it alike."""
    model = build(distil_cfg(teacher_checkpoint, scale_factor=2, **ALL), 1)
    teacher = model.teacher.model
    for i, j in model.terms[0].levels:
        size = (24, 32)
        ours = model.rpn_head.prior_generator.grid_priors([size] * 5, device='cpu')[i]
        theirs = teacher.rpn_head.prior_generator.grid_priors([size] * 5, device='cpu')[j]
        assert torch.equal(2 * ours, theirs)
    batch = make_batch(teacher_scale=2, objects=(0, 0), sizes=((64, 96), (60, 90)))
    for image, sample in zip(batch['inputs'], batch['data_samples']):
        image.zero_()
        image[:, 16:24, 40:48] = 255
        sample.teacher_view = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
    data = model.data_preprocessor(batch, True)
    views = model.teacher.prepare(data['inputs'], data['data_samples'])  # (2, 3, 2H, 2W)
    assert views.shape[-2:] == tuple(2 * s for s in data['inputs'].shape[-2:])
    assert torch.allclose(views[..., ::2, ::2], data['inputs'], atol=1e-5)  # padding and content, every pixel
    pooled = [torch.nn.functional.max_pool2d(x.sum(1, keepdim=True), k)
              for x, k in ((data['inputs'], 4), (views, 8))]
    assert torch.equal(*(p == p.amax() for p in pooled))


def test_cross_resolution_without_views_is_an_error(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, scale_factor=2, **ALL), 1)
    with pytest.raises(ConfigError, match=r'TwoViewDataset'):
        losses_of(model, make_batch())
    with pytest.raises(ConfigError, match='same scale_factor'):
        losses_of(model, make_batch(teacher_scale=4))


def test_rois_are_scaled_and_keep_their_image(teacher_checkpoint):
    twice, once = (build(distil_cfg(teacher_checkpoint, scale_factor=s, **ALL)).teacher for s in (2, 1))
    rois = torch.tensor([[0., 1, 2, 3, 4], [1, 10, 20, 30, 40]])
    assert torch.equal(twice.scale_rois(rois), torch.tensor([[0., 2, 4, 6, 8], [1, 20, 40, 60, 80]]))
    assert once.scale_rois(rois) is rois


def test_a_square_excites_the_same_cells_of_both_networks(tmp_path):
    """Through backbone and neck of equal networks: where the features change is the same place, level by level."""
    path = save_checkpoint(build(faster_rcnn_cfg(), 3), tmp_path / 't.pth')
    model = build(distil_cfg((faster_rcnn_cfg(), path), scale_factor=2, **ALL), 1)
    model.load_state_dict(model.teacher.model.state_dict(), strict=True)
    model.eval()

    def centre(features, empty):
        """Where two maps (1, C, h, w) differ, in cells: (row, column)."""
        change = (features - empty).square().sum((0, 1))
        rows, columns = (torch.arange(n, dtype=torch.float32) + 0.5 for n in change.shape)
        return torch.stack([(change.sum(1) * rows).sum(), (change.sum(0) * columns).sum()]) / change.sum()

    def both(square):
        batch = make_batch(teacher_scale=2, objects=(0,), sizes=((128, 192),))
        image, sample = batch['inputs'][0], batch['data_samples'][0]
        image.zero_()
        if square is not None:
            y, x = square
            image[:, y:y + 16, x:x + 16] = 255
        sample.teacher_view = image.repeat_interleave(2, 1).repeat_interleave(2, 2)
        data = model.data_preprocessor(batch, True)
        with torch.no_grad():
            return (model.extract_feat(data['inputs']),
                    model.teacher.model.extract_feat(model.teacher.prepare(data['inputs'], data['data_samples'])))
    empty = both(None)
    first, second = both((32, 64)), both((64, 128))
    for (i, j), stride in zip(model.terms[-1].pairs[:2], (4, 8)):
        ours, theirs, theirs_later = (centre(scene[side][level], empty[side][level])
                                      for scene, side, level in ((first, 0, i), (first, 1, j), (second, 1, j)))
        assert (ours - theirs).abs().max() < 0.75, (i, j, ours, theirs)
        moved = torch.tensor([32., 64]) / stride
        assert (theirs_later - theirs - moved).abs().max() < 0.75, (theirs, theirs_later, moved)
