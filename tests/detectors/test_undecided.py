"""A teacher that is asked about RoIs only where the student cannot decide."""
import functools
import math

import pytest
import torch
from any_detector import cascade_rcnn
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint
from test_unlabelled import taught

from kd_det.detectors.unlabelled import PREFIX
from kd_det.errors import ConfigError
from kd_det.sources.mixture import certainty

SOFT, BOX = 'loss_cls_distill', 'loss_bbox_distill'


def of(teacher_checkpoint, undecided, **changes):
    return build(taught(teacher_checkpoint, **{**dict(unlabelled=None, rpn_distill=None, hints=[], rcnn_distill=dict(
        undecided=undecided, cls=dict(type='SoftTargetLoss', background_weight=1.0))), **changes}))


def counted(model):
    """How many RoIs the teacher's box head is asked about."""
    rows = []
    head = model.teacher.model.roi_head.bbox_head
    head.register_forward_hook(lambda _m, _i, out: rows.append(len(out[0])))
    return rows


def test_certainty_on_numbers():
    even, sure = torch.zeros(1, 3), torch.tensor([[50.0, 0, 0]])
    p = torch.tensor([0.5, 0.25, 0.25])
    expected = 1 - (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(3)
    assert float(certainty(even, False)) == pytest.approx(0, abs=1e-6)
    assert float(certainty(sure, False)) == pytest.approx(1)
    assert float(certainty(p.log()[None], False)) == pytest.approx(expected, rel=1e-5)
    assert certainty(torch.tensor([[0.0, 0.0], [9.0, -9.0], [0.0, math.log(3)]]), True).tolist() == pytest.approx(
        [0, 1, 0.5], abs=1e-3)


def test_all_is_the_whole_term_and_none_runs_nothing(teacher_checkpoint):
    batch = make_batch(objects=(3, 2))
    whole, all_of, none = (of(teacher_checkpoint, value) for value in (None, 1.0, 0.0))
    one, two = losses_of(whole, batch), losses_of(all_of, batch)
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in (SOFT, BOX))
    none.teacher.model.backbone.forward = None  # not even that
    found = losses_of(none, batch)
    assert float(found[SOFT]) == float(found[BOX]) == float(found['asked_rois']) == 0
    found[SOFT].backward()
    for name in set(one) - {SOFT, BOX}:
        assert str(one[name]) == str(found[name]), name


@pytest.mark.parametrize('several', [False, True])
def test_some_are_asked_and_the_others_left_out(teacher_checkpoint, several):
    """Independent: the whole terms of each RoI, those of decided ones dropped, over all."""
    batch, changes = make_batch(objects=(3, 2)), {}
    if several:
        source = dict(config=teacher_checkpoint[0].to_dict(), checkpoint=teacher_checkpoint[1])
        changes = dict(teacher=None, sources=dict(a=source, b=source))
        changes['rcnn_distill'] = dict(source=['a', 'b'], cls=dict(type='SoftTargetLoss', background_weight=1.0))
    whole = of(teacher_checkpoint, None, **changes)
    calls, terms = [], []
    head, soft = whole.roi_head.bbox_head, whole.terms[0].cls
    keep, forward = head.loss_and_target, soft.forward

    @functools.wraps(keep)
    def spy(*args, **kwargs):
        calls.append((args[0] if args else kwargs['cls_score']).detach())
        return keep(*args, **kwargs)
    head.loss_and_target = spy
    soft.forward = lambda s, t, **k: terms.append(forward(s, t, reduction_override='none')) or forward(s, t, **k)
    losses_of(whole, batch)
    sure = certainty(calls[0], False)
    limit = float(sure.median())
    expected = terms[0].detach()[sure <= limit].sum() / len(sure)
    if several:
        changes['rcnn_distill'] = dict(changes['rcnn_distill'], undecided=limit)
    model = of(teacher_checkpoint, limit, **changes)
    rows = counted(model) if not several else []
    found = losses_of(model, batch)
    assert float(found[SOFT]) == pytest.approx(0.5 * float(expected), rel=1e-4)
    assert 0 < float(found['asked_rois']) == pytest.approx(float((sure <= limit).float().mean()))
    assert several or rows == [int((sure <= limit).sum())], 'the teacher\'s head runs on these alone'
    assert set(model.distill_terms) == {SOFT, BOX}


def test_beside_a_hint_in_the_box_head_all_are_run_and_the_loss_is_the_same(teacher_checkpoint):
    batch = make_batch(objects=(3, 2))
    alone = losses_of(of(teacher_checkpoint, 0.05), batch)
    beside = of(teacher_checkpoint, 0.05, hints=[dict(layer='roi_head.bbox_head.shared_fcs.1')])
    rows = counted(beside)
    found = losses_of(beside, batch)
    assert len(rows) == 1 and float(found[SOFT]) == pytest.approx(float(alone[SOFT]), rel=1e-4, abs=1e-7)


def test_on_images_without_labels(tmp_path):
    """The teacher's proposals, and of these only what the student cannot decide."""
    path = save_checkpoint(build(faster_rcnn_cfg(width=16, channels=24), seed=7), tmp_path / 't.pth')
    pair = faster_rcnn_cfg(width=16, channels=24), path
    found = {}
    for undecided in (None, 0.0, 1.0):
        model = of(pair, undecided, unlabelled=dict())
        model.unlabelled.take(make_batch(seed=5))
        found[undecided] = float(losses_of(model, make_batch(objects=(3, 2)))[PREFIX + SOFT].detach())
    assert found[0.0] == 0 < found[None] == found[1.0]


def test_plan_and_refusals(teacher_checkpoint):
    assert 'certainty is at most 0.4' in '\n'.join(of(teacher_checkpoint, 0.4).plan())
    for wrong in (-0.1, 1.5, True, 'some'):
        with pytest.raises(ConfigError, match=r'rcnn_distill\.undecided'):
            of(teacher_checkpoint, wrong)


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize('images', [[0], [1], [0, 2], [0, 1, 2]])
def test_only_the_images_of_undecided_rois_run(teacher_checkpoint, several, images, monkeypatch):
    """Losses and gradients are those of a teacher that sees the whole batch; padding too (the third image is small)."""
    batch = make_batch(sizes=((96, 128), (96, 128), (64, 96)), objects=(3, 2, 1))
    changes = {}
    if several:
        source = dict(config=teacher_checkpoint[0].to_dict(), checkpoint=teacher_checkpoint[1])
        changes = dict(teacher=None, sources=dict(a=source, b=source))
        changes['rcnn_distill'] = dict(source=['a', 'b'], undecided=0.5)
    found = {}
    for alone in (False, True):
        model = of(teacher_checkpoint, 0.5, **changes)
        if not alone:
            monkeypatch.setattr(type(model.terms[0]), '_asks_alone', lambda *_: False)
        rois, ran = [], []
        keep = model.roi_head.bbox_head.loss_and_target

        @functools.wraps(keep)
        def spy(*args, **kwargs):
            rois.append(kwargs['rois'])  # noqa: B023
            return keep(*args, **kwargs)  # noqa: B023
        model.roi_head.bbox_head.loss_and_target = spy
        monkeypatch.setattr('kd_det.terms.rcnn.certainty', lambda scores, _, rois=rois: (
            ~torch.isin(rois[-1][:, 0], torch.tensor(images).float())).float())
        for source in model.sources.values():
            if hasattr(source, 'network'):
                source.network.backbone.register_forward_hook(lambda _m, args, _o, ran=ran: ran.append(len(args[0])))
        losses = losses_of(model, batch)
        (losses[SOFT] + losses[BOX]).backward()
        found[alone] = losses, model.roi_head.bbox_head.fc_cls.weight.grad.clone(), ran
        monkeypatch.undo()
    (whole, grad, every), (some, same, ran) = found[False], found[True]
    assert every == [3] * (1 + several) and ran == [len(images)] * (1 + several)
    for name in (SOFT, BOX, 'asked_rois'):
        assert float(some[name]) == pytest.approx(float(whole[name]), rel=1e-4), name
    torch.testing.assert_close(same, grad, rtol=1e-3, atol=1e-7)


def test_whole_batches_run_where_another_term_asks(teacher_checkpoint, monkeypatch):
    for changes in (dict(rpn_distill=dict()), dict(hints=[dict(layer='neck')])):
        model, ran = of(teacher_checkpoint, 0.5, **changes), []
        monkeypatch.setattr('kd_det.terms.rcnn.certainty', lambda scores, _: torch.arange(len(scores)) * 1.0)
        model.teacher.network.backbone.register_forward_hook(lambda _m, args, _o, ran=ran: ran.append(len(args[0])))
        losses_of(model, make_batch(objects=(3, 2)))
        assert ran == [2]


def test_each_image_runs_once_for_all_stages_of_a_cascade(tmp_path, monkeypatch):
    path = save_checkpoint(build(cascade_rcnn(8), seed=7), tmp_path / 'c.pth')
    cfg = cascade_rcnn(8)
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', rcnn_distill=dict(undecided=0.5),
               teacher=dict(config=cascade_rcnn(8).to_dict(), checkpoint=path))
    model, ran, calls = build(cfg), [], []
    model.teacher.network.backbone.register_forward_hook(lambda _m, args, _o: ran.append(len(args[0])))

    def prescribed(scores, _):
        calls.append(len(scores))
        half = torch.arange(len(scores)) < len(scores) // 8
        return (half.float() if len(calls) == 2 else 1 - half.float()) if len(calls) < 3 else torch.zeros(len(scores))
    monkeypatch.setattr('kd_det.terms.rcnn.certainty', prescribed)
    losses = losses_of(model, make_batch(objects=(3, 2)))
    assert len(calls) == 3 and sum(ran) == 2, 'no image runs twice'
    assert all(float(losses[f's{i}.{SOFT}']) > 0 for i in range(3))
