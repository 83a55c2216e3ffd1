"""nms, soft_nms, nms_match and batched_nms of MMCV against plain loops."""
import math

import numpy as np
import pytest
import torch

from kd_det.compat import ext

pytest.importorskip('mmcv')
ext.install()
from mmcv.ops import batched_nms, nms, nms_match, soft_nms  # noqa: E402


def random_boxes(count, seed, size=40.0):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, size, (count, 2))
    sides = rng.uniform(2, size / 2, (count, 2))
    boxes = torch.from_numpy(np.concatenate([corner, corner + sides], 1)).float()
    return boxes, torch.from_numpy(rng.permutation(count) / count + 0.01).float()


def iou(a, b, offset=0):
    def side(low, high):
        return max(0.0, high - low + offset)
    inter = (side(max(a[0], b[0]), min(a[2], b[2])) * side(max(a[1], b[1]), min(a[3], b[3])))
    areas = [(c[2] - c[0] + offset) * (c[3] - c[1] + offset) for c in (a, b)]
    return inter / (sum(areas) - inter)


def plain_nms(boxes, scores, threshold, offset=0):
    boxes = boxes.tolist()
    kept = []
    for i in sorted(range(len(boxes)), key=lambda k: -scores[k].item()):
        if all(iou(boxes[i], boxes[j], offset) <= threshold for j in kept):
            kept.append(i)
    return kept


def plain_soft_nms(boxes, scores, threshold, sigma, min_score, method, offset):
    boxes, left = boxes.tolist(), dict(enumerate(scores.tolist()))
    taken = []
    while left:
        best = max(left, key=left.get)
        taken.append((best, left.pop(best)))
        for i in list(left):
            overlap = iou(boxes[best], boxes[i], offset)
            if method == 'gaussian':
                left[i] *= math.exp(-overlap ** 2 / sigma)
            elif overlap >= threshold:
                left[i] *= 0 if method == 'naive' else 1 - overlap
            if left[i] < min_score:
                del left[i]
    return taken


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
def test_nms_equals_plain_loop(threshold, offset):
    boxes, scores = random_boxes(60, seed=1)
    dets, kept = nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == plain_nms(boxes, scores, threshold, offset)
    assert kept.dtype == torch.long
    assert torch.equal(dets, torch.cat([boxes[kept], scores[kept, None]], 1))


def test_nms_offset_counts_the_last_pixel():
    # 1-pixel boxes [0, 1] and [1, 2] share an edge: IoU 0 as regions, 1*2 / (4 + 4 - 2) as pixels
    boxes = torch.tensor([[0., 0, 1, 1], [1, 0, 2, 1]])
    scores = torch.tensor([0.9, 0.8])
    assert len(nms(boxes, scores, 0.3, offset=0)[1]) == 2
    assert len(nms(boxes, scores, 0.3, offset=1)[1]) == 1
    assert len(nms(boxes, scores, 0.34, offset=1)[1]) == 2  # the IoU is 1/3


@pytest.mark.parametrize('tenths', range(1, 10))
def test_nms_keeps_a_box_whose_iou_is_exactly_the_threshold(tenths):
    boxes = torch.tensor([[0., 0, 10, 10], [0, 0, tenths, 10]])
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), tenths / 10)[1]) == 2
    assert len(nms(boxes, torch.tensor([0.9, 0.8]), tenths / 10 - 1e-3)[1]) == 1


def test_nms_score_threshold_and_max_num_keep_original_indices():
    boxes, scores = random_boxes(30, seed=2)
    want = [i for i in plain_nms(boxes, scores, 0.3) if scores[i] > 0.4][:3]
    _, kept = nms(boxes, scores, 0.3, score_threshold=0.4, max_num=3)
    assert kept.tolist() == want


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_nms_takes_every_float_type(dtype):
    boxes, scores = random_boxes(40, seed=3)
    boxes, scores = boxes.to(dtype), torch.linspace(0.1, 0.9, 40).to(dtype)
    dets, kept = nms(boxes, scores, 0.4)
    assert kept.tolist() == plain_nms(boxes.double(), scores.double(), 0.4)
    assert dets.dtype == dtype


def test_nms_of_nothing_is_nothing():
    dets, kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.long
    dets, kept = batched_nms(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0), None)
    assert dets.shape == (0, 5)


@pytest.mark.parametrize('split_thr', [10000, 2])
def test_batched_nms_treats_classes_apart(split_thr):
    boxes, scores = random_boxes(50, seed=4)
    labels = torch.arange(50) % 3
    cfg = {'type': 'nms', 'iou_threshold': 0.3, 'split_thr': split_thr}
    dets, kept = batched_nms(boxes, scores, labels, cfg)
    want = [int(i) for c in range(3) for i in torch.nonzero(labels == c)[:, 0][plain_nms(
        boxes[labels == c], scores[labels == c], 0.3)]]
    assert kept.tolist() == sorted(want, key=lambda i: -scores[i].item())
    torch.testing.assert_close(dets[:, 4], scores[kept])
    _, agnostic = batched_nms(boxes, scores, labels, cfg | {'class_agnostic': True})
    if split_thr > 50:
        assert agnostic.tolist() == plain_nms(boxes, scores, 0.3)


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms_equals_plain_loop(method, offset):
    boxes, scores = random_boxes(50, seed=5)
    args = {'iou_threshold': 0.3, 'sigma': 0.5, 'min_score': 0.05}
    dets, kept = soft_nms(boxes, scores, method=method, offset=offset, **args)
    want = plain_soft_nms(boxes, scores, 0.3, 0.5, 0.05, method, offset)
    assert kept.tolist() == [i for i, _ in want]
    np.testing.assert_allclose(dets[:, 4], [s for _, s in want], rtol=1e-5)
    assert torch.equal(dets[:, :4], boxes[kept])


def test_soft_nms_linear_by_hand():
    # IoU of the two is 50 / 150; the second score becomes 0.6 * (1 - 1/3)
    boxes = torch.tensor([[0., 0, 10, 10], [0, 5, 10, 15], [50, 50, 60, 60]])
    dets, kept = soft_nms(boxes, torch.tensor([0.9, 0.6, 0.5]), iou_threshold=0.3)
    assert kept.tolist() == [0, 2, 1]
    torch.testing.assert_close(dets[:, 4], torch.tensor([0.9, 0.5, 0.4]))


def test_soft_nms_of_nothing_and_of_half_precision():
    dets, kept = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert dets.shape == (0, 5) and kept.shape == (0,)
    boxes, scores = random_boxes(10, seed=6)
    dets, _ = soft_nms(boxes.half(), scores.half())
    assert dets.dtype == torch.half


def test_soft_nms_ignores_boxes_without_area():
    boxes = torch.tensor([[5., 5, 5, 5], [5, 5, 5, 5], [0, 0, 10, 10]])
    dets, kept = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]), method='gaussian')
    assert kept.tolist() == [0, 1, 2] and torch.isfinite(dets).all()


def test_nms_match_groups_each_box_with_its_suppressor():
    boxes, scores = random_boxes(40, seed=7)
    groups = nms_match(torch.cat([boxes, scores[:, None]], 1), 0.3)
    kept, rows = [], boxes.tolist()
    want = {}
    for i in sorted(range(40), key=lambda k: -scores[k].item()):
        owner = next((j for j in kept if iou(rows[i], rows[j]) >= 0.3), None)
        if owner is None:
            kept.append(i)
            want[i] = [i]
        else:
            want[owner].append(i)
    assert [g.tolist() for g in groups] == [want[i] for i in kept]
    assert sorted(i for g in groups for i in g.tolist()) == list(range(40))
    assert nms_match(torch.zeros(0, 5), 0.3) == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('offset', [0, 1])
def test_nms_on_cuda_equals_cpu(offset):
    boxes, scores = random_boxes(200, seed=8)
    want = nms(boxes, scores, 0.4, offset=offset)[1]
    assert torch.equal(nms(boxes.cuda(), scores.cuda(), 0.4, offset=offset)[1].cpu(), want)
    dets, kept = soft_nms(boxes.cuda(), scores.cuda())
    assert dets.is_cuda and kept.is_cuda
