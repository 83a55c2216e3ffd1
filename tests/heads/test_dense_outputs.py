"""What heads say in one form: YOLOX's joint score, all boxes at once, levels."""
import math

import pytest
import torch
from conftest import build, make_batch
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict

from kd_det.heads.dense_outputs import DenseOutputs, decoder_of, joint_logits, training_format


def test_joint_logits_are_the_logits_of_the_product():
    one, other = torch.meshgrid(torch.linspace(-12, 12, 25), torch.linspace(-12, 12, 25), indexing='ij')
    for a, b, z in zip(one.flatten().tolist(), other.flatten().tolist(), joint_logits(one, other).flatten().tolist()):
        yes = 1 / ((1 + math.exp(-a)) * (1 + math.exp(-b)))
        no = (math.exp(-a) + math.exp(-b) + math.exp(-a - b)) * yes  # 1 - p without cancellation
        assert z == pytest.approx(math.log(yes / no), rel=1e-5, abs=1e-5)


def test_joint_logits_are_finite_far_out_and_their_gradient_is_right():
    far = torch.tensor([-300.0, -50.0, 0.0, 50.0, 300.0], requires_grad=True)
    total = joint_logits(far[:, None], far[None]).sum()
    total.backward()
    assert bool(total.isfinite()) and bool(far.grad.isfinite().all())
    a, b = (torch.randn(30, dtype=torch.float32).requires_grad_() for _ in range(2))
    joint_logits(a, b).sum().backward()
    p = a.detach().sigmoid() * b.detach().sigmoid()
    # d logit(p) / da = p' / (p (1 - p)) with p' = p (1 - sigmoid(a))
    torch.testing.assert_close(a.grad, (1 - a.detach().sigmoid()) / (1 - p), rtol=1e-4, atol=1e-5)


def outputs_of(model):
    data = model.data_preprocessor(make_batch(sizes=((64, 96),) * 2, objects=(2, 0)), True)
    with torch.no_grad(), training_format(model.bbox_head):
        raw = model.bbox_head(model.extract_feat(data['inputs']))
    return DenseOutputs.of(model.bbox_head, decoder_of(model.bbox_head, 'x'), raw), raw, data


def test_yolox_scores_and_boxes_are_those_of_its_prediction():
    model = build(dense_cfg('yolox'), 1).eval()
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    found, raw, data = outputs_of(model)
    metas = [sample.metainfo for sample in data['data_samples']]
    results = model.bbox_head.predict_by_feat(*raw, metas, cfg=ConfigDict(score_thr=0), with_nms=False)
    for image, result in enumerate(results):
        torch.testing.assert_close(found.logits[image].sigmoid().amax(1), result.scores)
        torch.testing.assert_close(found.boxes(image), result.bboxes)
    assert torch.equal(found.factor[0], torch.cat([level[0].flatten() for level in raw[2]]))


@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'fcos', 'tood', 'rtmdet', 'yolox'])
def test_all_boxes_are_the_boxes_of_each_image_and_levels_add_up(kind):
    found, raw, _ = outputs_of(build(dense_cfg(kind), 1).eval())
    assert torch.equal(found.all_boxes(), torch.stack([found.boxes(0), found.boxes(1)]))
    anchors = 9 if kind == 'retinanet' else 1
    assert found.level_sizes == [anchors * level.shape[2] * level.shape[3] for level in raw[0]]
    assert sum(found.level_sizes) == found.logits.shape[1]
