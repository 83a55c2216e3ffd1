"""What the verification of an export lets pass, and what not; hand-made scores and boxes."""
import numpy as np

from kd_det.export.verify import TIE, Agreement, check

META = dict(clip=True, min_size=0.0, nms_iou=0.5, vote=False, max_per_image=100, score_threshold=0.05)
BOXES = np.float32([[10, 10, 30, 30], [14, 10, 34, 30], [60, 60, 80, 90]])  # the first two overlap by 2/3


def checked(theirs, scores, boxes=BOXES, **meta) -> Agreement:
    """``theirs``: rows of x1, y1, x2, y2, score; class 0."""
    theirs = np.float32(theirs).reshape(-1, 5)
    result = Agreement()
    detections = theirs[:, :4], theirs[:, 4], np.zeros(len(theirs), int)
    check('a.png', detections, np.float32(scores)[:, None], boxes, (100, 100), META | meta, result)
    return result


def test_equal_detections_agree():
    found = checked([[*BOXES[0], 0.9], [*BOXES[2], 0.6]], [0.9, 0.8, 0.6])
    assert not found.faults and found.ties == 0 and (found.images, found.detections) == (1, 2)


def test_among_equal_scores_any_order_is_right():
    theirs = [[*BOXES[1], 0.9], [*BOXES[2], 0.6]]  # PyTorch took the second first
    assert checked(theirs, [0.9, 0.9, 0.6]).ties == 1
    assert not checked(theirs, [0.9 + TIE / 4, 0.9, 0.6]).faults
    assert checked(theirs, [0.9 + 3 * TIE, 0.9, 0.6]).faults, 'they are not equal'


def test_the_order_explains_nothing_else():
    """Another box, a surplus one or a missing one stays a fault, although two scores are equal."""
    moved = BOXES[1] + np.float32([0, 0, 0, 0.5])
    assert checked([[*moved, 0.9], [*BOXES[2], 0.6]], [0.9, 0.9, 0.6]).faults
    assert checked([[*BOXES[1], 0.9]], [0.9, 0.9, 0.6]).faults
    assert checked([[*BOXES[1], 0.9], [*BOXES[2], 0.6], [0, 50, 9, 60, 0.5]], [0.9, 0.9, 0.6]).faults


def test_a_box_without_width_may_be_on_one_side_only():
    """Rounding made it 0.00001 pixels wide at the border, where PyTorch's is 0 and dropped."""
    thin = np.concatenate([BOXES, np.float32([[100 - 1e-5, 10, 105, 20]])])
    theirs = [[*BOXES[0], 0.9], [*BOXES[2], 0.6]]
    assert not checked(theirs, [0.9, 0.8, 0.6, 0.95], thin).faults
    thin[3, 0] = 99.5
    assert checked(theirs, [0.9, 0.8, 0.6, 0.95], thin).faults, 'half a pixel is no rounding'
    thin[3, 0] = 100 - 1e-5
    # it also takes the last place from another detection
    assert not checked(theirs, [0.9, 0.8, 0.6, 0.95], thin, max_per_image=2).faults
