"""BatchedPAAHead against MMDetection's PAAHead, which it must be indistinguishable from."""
import copy
import warnings

import pytest
import torch
from mmdet.models.dense_heads import PAAHead
from paa_scenes import TinyPAA, head_cfg, reassign_calls, scenes

from kd_det.heads import batched_paa
from kd_det.heads.batched_paa import BatchedPAAHead

pytest.importorskip('sklearn')


def pair(seed: int = 0) -> tuple[TinyPAA, TinyPAA]:
    """MMDetection's and ours with the same weights, after a few steps away from the start."""
    torch.manual_seed(seed)
    plain = TinyPAA(PAAHead(**head_cfg()))
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    ours = TinyPAA(BatchedPAAHead(**head_cfg()))
    ours.load_state_dict(plain.state_dict())
    return plain, ours


def batch(counts: list[int], seed: int = 0, size: int = 160) -> tuple:
    return scenes(counts, size, torch.Generator().manual_seed(seed))


def losses_and_gradients(net: TinyPAA, images, gts, metas) -> tuple[dict, list]:
    net.zero_grad()
    losses = net.head.loss_by_feat(*net(images), gts, metas)
    sum(losses.values()).backward()
    gradients = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    return {name: loss.detach() for name, loss in losses.items()}, gradients


def test_positives_equal_mmdetections_on_two_thousand_real_objects():
    ours, plain = BatchedPAAHead(**head_cfg()), PAAHead(**head_cfg())
    objects = wrong = refused = 0
    for calls in reassign_calls(ours, stages=5, per_stage=5, batch=7):
        for args in calls:
            anchor_inds, gt_inds = args[4:6]
            try:
                expected = plain.paa_reassign(*args)
            except ValueError:  # scikit-learn could not fit one of them
                refused += 1
                continue
            with warnings.catch_warnings():
                warnings.simplefilter('error')
                found = ours.paa_reassign(*args)
            differs = (found[0] != expected[0])[anchor_inds]  # (A,)
            objects += len(gt_inds.unique())
            wrong += len(gt_inds[differs].unique())
            if not differs.any():
                assert all(torch.equal(a, b) for a, b in zip(found[:3], expected[:3]))
                assert found[3] == expected[3] and isinstance(found[3], int)
    assert objects >= 2000
    assert refused <= 2
    assert wrong <= objects // 1000


def test_only_among_equal_costs_may_the_choice_differ():
    # PAA cuts its sorted list at a position, so that where among equals it cuts is left to topk().
    ours, plain = BatchedPAAHead(**head_cfg()), PAAHead(**head_cfg())
    differing = 0
    for calls in reassign_calls(ours, stages=1, per_stage=2):
        for costs, *rest in calls:
            costs = (costs * 10).round() / 10  # many ties
            expected, found = (head.paa_reassign(costs, *rest)[0] for head in (plain, ours))
            anchor_inds, gt_inds = rest[3:5]
            for gt in gt_inds.unique():
                mine = gt_inds == gt
                values, inds = costs[mine], anchor_inds[mine]
                theirs, own = (label[inds] < plain.num_classes for label in (expected, found))
                if torch.equal(theirs, own):
                    continue
                differing += 1
                assert values[own].max() == values[theirs].max()
                for value in values[theirs != own].unique():
                    assert (values == value).sum() > 1
    assert differing > 10


@pytest.mark.parametrize('counts', [[5, 0, 9], [7], [0, 3], [0, 0]])
def test_losses_and_gradients_are_bit_equal(counts):
    plain, ours = pair()
    data = batch(counts)
    expected, found = (losses_and_gradients(net, *data) for net in (plain, ours))
    assert expected[0].keys() == found[0].keys()
    assert all(torch.equal(expected[0][name], found[0][name]) for name in expected[0])
    assert len(expected[1]) == len(found[1])
    assert all(torch.equal(a, b) for a, b in zip(expected[1], found[1]))


def test_objects_without_and_with_one_candidate_become_background():
    plain, ours = pair()
    images, gts, metas = batch([4, 2])
    gts[0].bboxes[:3] = torch.tensor([[8., 8., 9., 9.], [60., 60., 61.5, 61.], [0., 0., 20., 18.]])
    gts[1].bboxes[:] = torch.tensor([[8., 8., 9., 9.], [40., 8., 41., 9.]])  # too small for any
    expected, found = (losses_and_gradients(net, images, gts, metas) for net in (plain, ours))
    assert all(torch.equal(expected[0][name], found[0][name]) for name in expected[0])
    head, label = ours.head, torch.tensor([3, 1, 3, 3])
    one = head.paa_reassign(torch.tensor([0.4]), label, torch.ones(4), torch.ones(4, 4),
                            torch.tensor([1]), torch.tensor([0]), [torch.zeros(4, 4)])
    assert one[0].tolist() == [3, 3, 3, 3] and one[3] == 0
    assert one[2][1].tolist() == [0] * 4 and one[1].tolist() == [1] * 4
    assert label.tolist() == [3, 1, 3, 3]  # the argument is left as it was


def test_the_batch_is_fitted_in_one_call(monkeypatch):
    _, ours = pair()
    sizes, original = [], batched_paa.paa_positives

    def count(costs, *args, **kwargs):
        sizes.append(len(costs))
        return original(costs, *args, **kwargs)

    monkeypatch.setattr(batched_paa, 'paa_positives', count)
    losses_and_gradients(ours, *batch([5, 0, 9, 1]))
    assert sizes == [3]  # the image without objects has nothing to fit
    losses_and_gradients(ours, *batch([2, 2]))
    assert sizes == [3, 2]


def test_any_single_call_gives_what_the_batch_gives():
    _, ours = pair()
    calls, results, original = [], [], ours.head.paa_reassign

    def record(*args):
        calls.append(args)
        results.append(original(*args))
        return results[-1]

    ours.head.__dict__['paa_reassign'] = record
    losses_and_gradients(ours, *batch([6, 3, 8]))
    del ours.head.__dict__['paa_reassign']
    assert len(calls) == 3 and all(result[3] > 0 for result in results)
    for args, result in zip(calls, results):
        alone = ours.head.paa_reassign(*args)
        assert all(torch.equal(a, b) for a, b in zip(alone[:3], result[:3]))
        assert alone[3] == result[3]


def test_recorded_decisions_can_be_replayed_in_another_head():
    teacher, student = pair(seed=1)[1], pair(seed=2)[1]
    data, decisions = batch([6, 0, 8]), []
    original = teacher.head.paa_reassign

    def record(*args):
        decisions.append(original(*args))
        return decisions[-1]

    teacher.head.__dict__['paa_reassign'] = record
    with torch.no_grad():
        teacher.head.loss_by_feat(*teacher(data[0]), *data[1:])
    own, _ = losses_and_gradients(student, *data)
    queue = list(decisions)
    student.head.__dict__['paa_reassign'] = lambda *args: queue.pop(0)
    replayed, gradients = losses_and_gradients(student, *data)
    assert not queue and own['loss_cls'] != replayed['loss_cls']
    assert all(gradient.isfinite().all() for gradient in gradients)
    # The same with plain heads on either side
    plain = TinyPAA(PAAHead(**head_cfg()))
    plain.load_state_dict(student.state_dict())
    queue.extend(decisions)
    plain.head.__dict__['paa_reassign'] = lambda *args: queue.pop(0)
    expected, _ = losses_and_gradients(plain, *data)
    assert all(torch.equal(replayed[name], expected[name]) for name in expected)


def test_nothing_of_a_batch_outlives_its_loss():
    _, ours = pair()
    data = batch([4, 6])

    def kept():
        return ours.head._first_assignment, ours.head._waiting, ours.head._positives

    losses_and_gradients(ours, *data)
    assert kept() == ([], [], [])

    def fail(*args):
        raise RuntimeError('stop')

    ours.head.__dict__['paa_reassign'] = fail
    with pytest.raises(RuntimeError, match='stop'):
        losses_and_gradients(ours, *data)
    assert kept() == ([], [], [])
    del ours.head.__dict__['paa_reassign']
    copy.deepcopy(ours)


def test_weights_and_errors():
    assert (PAAHead(**head_cfg()).state_dict().keys()
            == BatchedPAAHead(**head_cfg()).state_dict().keys())
    BatchedPAAHead(**head_cfg(covariance_type='full'))
    with pytest.raises(ValueError, match="covariance_type='tied' is not supported; use 'diag'"):
        BatchedPAAHead(**head_cfg(covariance_type='tied'))

    class Custom(BatchedPAAHead):
        def gmm_separation_scheme(self, *args):
            raise NotImplementedError

    with pytest.raises(TypeError, match='override paa_reassign, or derive from PAAHead'):
        Custom(**head_cfg())


def test_diverged_training_is_an_error_not_an_empty_assignment():
    _, ours = pair()
    with torch.no_grad():
        ours.head.atss_cls.bias.fill_(float('nan'))
    with pytest.raises(ValueError, match='costs must be finite'):
        losses_and_gradients(ours, *batch([5]))
