"""COPHead: its score is the paper's formula, and PAA's loss, costs and prediction work on it."""
import pytest
import torch
from conftest import build, losses_of, make_batch, total
from dense_detectors import dense_cfg

from kd_det.heads.cop import conditional_log_odds


def test_score_is_the_mean_of_products():
    torch.manual_seed(0)
    z, o = 4 * torch.randn(2, 3, 4, 5).double(), 4 * torch.randn(2, 9, 4, 5).double()
    expected = (z.sigmoid()[:, :, None] * o.sigmoid()[:, None]).mean(2)  # (N, C, H, W)
    assert torch.allclose(conditional_log_odds(z, o).sigmoid(), expected, rtol=1e-12)
    hand = conditional_log_odds(torch.zeros(1, 1, 1, 1), torch.zeros(1, 9, 1, 1))
    assert hand.sigmoid().item() == pytest.approx(0.25)


def test_extreme_logits_neither_saturate_nor_break_gradients():
    z = torch.tensor([80., -80, 80, -80]).view(1, 4, 1, 1).requires_grad_()
    for value in (-90., 90.):
        o = torch.full((1, 9, 1, 1), value, requires_grad=True)
        odds = conditional_log_odds(z, o)
        assert odds.isfinite().all() and odds.dtype == torch.float32
        odds.sum().backward()
        assert z.grad.isfinite().all() and o.grad.isfinite().all()
    assert conditional_log_odds(z.detach().half(), o.detach().half()).isfinite().all()


def test_focal_loss_on_log_odds_is_the_focal_loss_on_probabilities():
    from mmdet.models.losses import FocalLoss
    torch.manual_seed(0)
    odds, labels = conditional_log_odds(torch.randn(1, 2, 3, 4), torch.randn(1, 9, 3, 4)), torch.randint(0, 3, (12,))
    rows = odds.permute(0, 2, 3, 1).reshape(12, 2)
    assert torch.allclose(FocalLoss()(rows, labels), FocalLoss(activated=True)(rows.sigmoid(), labels), rtol=1e-4)


def test_trains_and_predicts_as_a_paa_head():
    model = build(dense_cfg('paa', type='COPHead'))
    losses = losses_of(model, make_batch())
    total(losses).backward()
    assert set(losses) == {'loss_cls', 'loss_bbox', 'loss_iou'}
    assert model.bbox_head.cop.weight.shape[0] == 9 and float(model.bbox_head.cop.weight.grad.abs().sum()) > 0
    plain = {name for name, _ in build(dense_cfg('paa')).named_parameters()}
    assert {name for name, _ in model.named_parameters()} - plain == {'bbox_head.cop.weight', 'bbox_head.cop.bias'}
    model.eval()
    data = model.data_preprocessor(make_batch(), False)
    with torch.no_grad():
        assert len(model.predict(data['inputs'], data['data_samples'])) == 2


def test_several_anchors_per_location_are_refused():
    cfg = dense_cfg('paa', type='COPHead')
    cfg.bbox_head.anchor_generator.ratios = [0.5, 1.0]
    with pytest.raises(ValueError, match='2 anchors per location'):
        build(cfg)
