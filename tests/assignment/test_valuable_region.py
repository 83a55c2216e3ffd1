"""LD's valuable region: numbers by hand, a loop over anchors and objects, limits."""
import pytest
import torch
from valuable_region_loops import by_loops

from kd_det.assignment import valuable_region as module
from kd_det.assignment.valuable_region import valuable_region


def grid(stride, width, height, side):
    y, x = torch.meshgrid(torch.arange(height // stride), torch.arange(width // stride), indexing='ij')
    centers = torch.stack([x, y], 2).flatten(0, 1) * float(stride)
    return torch.cat([centers - side / 2, centers + side / 2], 1)


def pyramid():
    levels = [grid(stride, 96, 64, 4 * stride) for stride in (8, 16, 32)]
    return torch.cat(levels), [len(level) for level in levels]


def test_by_hand():
    # one level, two candidates: IoU 1 and 1/3, t = 2/3 + sqrt(2 (1/3)^2); the second lies below t, above t / 4
    anchors = torch.tensor([[0., 0, 10, 10], [5, 0, 15, 10], [40, 40, 50, 50]])
    objects = torch.tensor([[0., 0, 10, 10]])
    t = 2 / 3 + (2 / 9)**0.5
    diou = 1 / 3 - 25 / (15**2 + 10**2)
    assert 0.25 * t > diou > 0.2 * t
    everything = torch.ones(3, dtype=torch.bool)
    # the object's own anchor has DIoU 1, below t = 1.138
    for alpha, second in ((0.25, 0), (0.2, 1 / 3)):
        found = valuable_region(anchors, [3], everything[None], [objects], alpha, topk=2)[0]
        torch.testing.assert_close(found, torch.tensor([1., second, 0]))


@pytest.mark.parametrize('seed', [0, 1, 2])
def test_equals_a_loop_over_objects_and_anchors(seed):
    anchors, sizes = pyramid()
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(4, 2, generator=generator) * torch.tensor([60., 30])
    objects = torch.cat([corner, corner + 12 + 40 * torch.rand(4, 2, generator=generator)], 1)
    valid = torch.rand(len(anchors), generator=generator) > 0.2
    valid[sum(sizes[:2]):] = False
    valid[-2:] = True  # a level with fewer valid anchors than candidates
    found = valuable_region(anchors, sizes, valid[None], [objects])[0]
    expected = torch.tensor(by_loops(anchors, sizes, valid, objects))
    assert (expected > 0).sum() > 5 and (expected == 0).sum() > 5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_nothing_to_find_nothing_found():
    anchors, sizes = pyramid()
    everything = torch.ones(len(anchors), dtype=torch.bool)
    assert not valuable_region(anchors, sizes, everything[None], [anchors[:0]]).any()
    assert not valuable_region(anchors, sizes, ~everything[None], [torch.tensor([[10., 10, 40, 40]])]).any()
    without_area = torch.tensor([[10., 10, 10, 10]])
    point = valuable_region(anchors, sizes, everything[None], [without_area])
    assert point.isfinite().all()


@pytest.mark.parametrize('pairs', [2**22, 1, 700])
def test_images_of_a_batch_do_not_see_each_other(monkeypatch, pairs):
    """Several at once, however few fit together, and one without objects between them."""
    monkeypatch.setattr(module, 'PAIRS', pairs)
    anchors, sizes = pyramid()
    generator = torch.Generator().manual_seed(3)
    corners = [torch.rand(count, 2, generator=generator) * torch.tensor([60., 30]) for count in (3, 0, 1, 2)]
    objects = [torch.cat([one, one + 12 + 40 * torch.rand(one.shape, generator=generator)], 1) for one in corners]
    valid = torch.rand(4, len(anchors), generator=generator) > 0.2
    found = valuable_region(anchors, sizes, valid, objects)
    assert found.shape == valid.shape and not found[1].any()
    for row, fits, boxes in zip(found, valid, objects):
        assert torch.equal(row, valuable_region(anchors, sizes, fits[None], [boxes])[0])
        if len(boxes):
            torch.testing.assert_close(row, torch.tensor(by_loops(anchors, sizes, fits, boxes)), rtol=1e-4, atol=1e-6)
