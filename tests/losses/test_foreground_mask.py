"""FGD's masks lie on the objects: cell by cell, in padded batches, without one cell too much."""
import math

import pytest
import torch

from kd_det.losses import background_mask, foreground_mask
from kd_det.losses.foreground import BOXES_AT_ONCE


def by_loops(boxes, size, canvas):
    """From the definition, for boxes inside the canvas and off the borders of cells."""
    (height, width), masks = size, []
    for some in boxes:
        mask = [[0.0] * width for _ in range(height)]
        for x1, y1, x2, y2 in some.tolist():
            rows = range(math.floor(y1 * height / canvas[0]), math.ceil(y2 * height / canvas[0]))
            columns = range(math.floor(x1 * width / canvas[1]), math.ceil(x2 * width / canvas[1]))
            for y in rows:
                for x in columns:
                    mask[y][x] = max(mask[y][x], 1 / (len(rows) * len(columns)))
        masks.append(mask)
    return torch.tensor(masks)


def test_a_loop_over_cells():
    generator = torch.Generator().manual_seed(0)
    boxes = []
    for count in (3, 0, 150):  # more than are worked on at once
        corners = torch.rand(count, 2, 2, generator=generator) * torch.tensor([130.0, 90.0]) + 0.1
        boxes.append(torch.cat([corners.amin(1), corners.amax(1)], 1))
    assert len(boxes[2]) > BOXES_AT_ONCE
    for size in ((12, 17), (6, 9), (1, 1)):
        torch.testing.assert_close(foreground_mask(boxes, size, (96, 136)), by_loops(boxes, size, (96, 136)))


def test_by_hand_without_one_cell_too_much():
    # stride 8: the box covers cells 1 and 2 downwards, 2 to 4 across, exactly up to their borders
    mask = foreground_mask([torch.tensor([[16.0, 8.0, 40.0, 24.0]])], (4, 6), (32, 48))
    expected = torch.zeros(4, 6)
    expected[1:3, 2:5] = 1 / 6
    assert torch.equal(mask[0], expected)
    # a hair over or under the border, as after a flip: the same cells
    for shift in (-1e-4, 1e-4):
        moved = foreground_mask([torch.tensor([[16.0, 8.0, 40.0, 24.0]]) + shift], (4, 6), (32, 48))
        assert torch.equal(moved[0], expected)


def test_padded_batch_the_mask_lies_on_the_object():
    # an image of 64 x 64 in a batch of 64 x 128: the object at x 48 to 56 is at column 6 of 16, not at 12
    mask = foreground_mask([torch.tensor([[48.0, 0.0, 56.0, 8.0]])], (8, 16), (64, 128))
    assert mask[0].nonzero().tolist() == [[0, 6]]


def test_the_smaller_box_wins_where_boxes_overlap():
    boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0], [8.0, 8.0, 16.0, 16.0]])
    for order in ([0, 1], [1, 0]):
        mask = foreground_mask([boxes[order]], (4, 4), (32, 32))[0]
        assert mask[1, 1] == 1.0 and mask.sum() == 1 + 15 / 16


def test_boxes_beyond_the_canvas_tiny_ones_and_none():
    boxes = [torch.tensor([[-20.0, -20.0, 12.0, 12.0]]), torch.tensor([[100.0, 0.0, 120.0, 9.0]]),
             torch.tensor([[9.0, 9.0, 9.0, 9.0], [15.0, 3.0, 16.0, 4.0]]), torch.zeros(0, 4)]
    mask = foreground_mask(boxes, (4, 4), (32, 32))
    assert mask[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]] and mask[0, 0, 0] == 0.25
    assert not mask[1].any() and not mask[3].any()
    assert mask[2].nonzero().tolist() == [[0, 1], [1, 1]] and mask[2].sum() == 2


def test_background_is_what_is_left():
    mask = foreground_mask([torch.tensor([[0.0, 0.0, 16.0, 8.0]]), torch.tensor([[0.0, 0.0, 32.0, 32.0]]),
                            torch.zeros(0, 4)], (4, 4), (32, 32))
    background = background_mask(mask)
    assert ((background > 0) == (mask == 0)).all()
    torch.testing.assert_close(background.sum((1, 2)), torch.tensor([1.0, 0.0, 1.0]))
    torch.testing.assert_close(background[0].max(), torch.tensor(1 / 14))


def test_refusals():
    with pytest.raises(ValueError, match=r'boxes of image 1 must be \(G, 4\), found \(3, 5\)'):
        foreground_mask([torch.zeros(0, 4), torch.zeros(3, 5)], (4, 4), (32, 32))
    with pytest.raises(ValueError, match='positive, found size'):
        foreground_mask([], (0, 4), (32, 32))
