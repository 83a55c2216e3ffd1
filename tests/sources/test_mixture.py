"""Means of teachers' probabilities on hand-computed numbers."""
import math

import pytest
import torch

from kd_det.sources.mixture import any_of, confidence_weights, known_only, sigmoid_mixture, softmax_mixture


def test_softmax_mean_by_hand():
    one, other = torch.tensor([[0.7, 0.2, 0.1]]).log(), torch.tensor([[0.1, 0.2, 0.7]]).log()
    weights = torch.tensor([[3.0, 3.0], [1.0, 1.0]]).unsqueeze(1)
    found = softmax_mixture([one, other], weights, [None, None]).exp()
    assert found[0].tolist() == pytest.approx([0.55, 0.2, 0.25], abs=1e-6)


def test_weights_by_class_are_divided_by_their_sum():
    one, other = torch.tensor([[0.6, 0.2, 0.2]]).log(), torch.tensor([[0.2, 0.4, 0.4]]).log()
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).unsqueeze(1)  # each teacher for one class
    found = softmax_mixture([one, other], weights, [None, None]).exp()
    # objects 0.6 and 0.4, background half of each: 0.3; the sum is 1.3
    assert found[0].tolist() == pytest.approx([0.6 / 1.3, 0.4 / 1.3, 0.3 / 1.3], abs=1e-6)


def test_a_class_without_any_weight_takes_nothing_from_the_background():
    one, other = torch.tensor([[0.5, 0.2, 0.3]]).log(), torch.tensor([[0.1, 0.2, 0.7]]).log()
    weights = torch.tensor([[1.0, 0.0], [1.0, 0.0]]).unsqueeze(1)
    found = softmax_mixture([one, other], weights, [None, None]).exp()
    # object 0.3, background 0.5; the second class is nobody's, and the sum of 0.8 becomes 1
    assert found[0].tolist() == pytest.approx([0.3 / 0.8, 0.0, 0.5 / 0.8], abs=1e-6)


def test_background_of_a_teacher_that_does_not_know_a_class_is_not_background():
    knows_first, knows_second = torch.tensor([[0.1, 0.9]]).log(), torch.tensor([[0.8, 0.2]]).log()
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).unsqueeze(1)
    found = softmax_mixture([knows_first, knows_second], weights, [[0], [1]]).exp()
    assert found[0].tolist() == pytest.approx([0.1, 0.8, 0.1], abs=1e-6)  # a mean of backgrounds would be 0.55


def test_sigmoid_mean_by_hand_and_in_the_tails():
    one, other = torch.tensor([[0.9, 0.5]]).logit(), torch.tensor([[0.1, 0.7]]).logit()
    weights = torch.tensor([[1.0, 1.0], [1.0, 3.0]]).unsqueeze(1)
    found = sigmoid_mixture([one, other], weights, [None, None]).sigmoid()
    assert found[0].tolist() == pytest.approx([0.5, 0.65], abs=1e-6)
    far = torch.tensor([[-60.0, 60.0]])
    assert torch.allclose(sigmoid_mixture([far, far], weights, [None, None]), far)
    partial = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).unsqueeze(1)
    assert sigmoid_mixture([one[:, 1:], other[:, :1]], partial, [[1], [0]]).sigmoid()[0].tolist() == \
        pytest.approx([0.1, 0.5], abs=1e-6)


def test_any_of_by_hand():
    found = any_of([torch.tensor([0.3, 1e-6]).logit(), torch.tensor([0.5, 1e-6]).logit()]).sigmoid()
    assert found.tolist() == pytest.approx([1 - 0.7 * 0.5, 2e-6], rel=1e-3)


def test_confidence_prefers_the_sharper_teacher_object_by_object():
    flat, sharp = torch.zeros(1, 4), torch.tensor([[50.0, 0.0, 0.0, 0.0]])
    found = confidence_weights([torch.cat([flat, sharp]), torch.cat([sharp, flat])], False, 0.5)[..., 0]  # (M, R)
    expected = math.exp(1 / 0.5) / (1 + math.exp(1 / 0.5))
    assert found[1, 0].item() == pytest.approx(expected) and found[0, 1].item() == pytest.approx(expected)
    assert torch.allclose(found.sum(0), torch.ones(2))


def test_an_unknown_class_has_no_gradient_and_its_mass_counts_with_the_background():
    logits = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    seen = known_only(logits, torch.tensor([True, False]), False)
    p, full = seen.softmax(1), logits.softmax(1)
    assert torch.allclose(p[0, 0], full[0, 0]) and torch.allclose(p[0, 1], full[0, 1] + full[0, 2])
    (-p.log()[0, 0]).backward()
    assert logits.grad[0, 1] == 0 and logits.grad[0, 0] < 0 < logits.grad[0, 2]
    assert known_only(logits, None, False) is logits
