"""Class-balanced distillation on hand-computed numbers and on a step recomputed by hand."""
import copy
import functools
import math

import pytest
import torch
from any_detector import cascade_rcnn
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from mmengine.config import ConfigDict
from two_ranks import forked

from kd_det.errors import ConfigError
from kd_det.losses.cosine import cosine_loss


def config_of(teacher, sources=1, **term):
    cfg = ConfigDict(faster_rcnn_cfg())
    named = {f't{i}': dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1]) for i in range(sources)}
    cfg.update(type='Distiller', student_type='FasterRCNN', sources=named, terms=[dict(
        type='ClassBalancedDistillation', source=list(named) if sources > 1 else 't0', **term)])
    return cfg


def distiller(teacher, sources=1, **term):
    return build(config_of(teacher, sources, **term), 1)


def test_cosine_by_hand():
    ours = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0]], requires_grad=True)
    theirs = torch.tensor([[5.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert float(cosine_loss(ours, theirs)) == pytest.approx((0 + 0.2 + 2) / 3, abs=1e-6)
    empty = cosine_loss(ours[:0], theirs[:0])
    assert float(empty) == 0 and empty.requires_grad


def test_plain_loss_is_weighed_and_only_foreground_is_compared(teacher_checkpoint):
    plain = losses_of(build(faster_rcnn_cfg(), 1), make_batch())
    model = distiller(teacher_checkpoint, alpha=0.25, beta=8.0)
    found = losses_of(model, make_batch())
    assert float(found['loss_cls']) == pytest.approx(0.75 * float(plain['loss_cls']))
    assert torch.equal(found['loss_bbox'], plain['loss_bbox'])
    assert 0 < float(found['loss_cbd']) <= 0.25 * 8 * 2
    total(found).backward()
    assert model.roi_head.bbox_head.shared_fcs[1].weight.grad.abs().sum() > 0
    empty = losses_of(model, make_batch(objects=(0, 0)))
    assert float(empty['loss_cbd']) == 0


def listen(head, note):
    """``note`` hears what the box head decides."""
    keep = head.loss_and_target

    @functools.wraps(keep)
    def listening(*args, **kwargs):
        note(result := keep(*args, **kwargs))
        return result
    head.loss_and_target = listening


def features_and_labels(model, batch):
    """Student's features behind the adapter, the teacher's, and labels of the sampled RoIs; the losses of the step."""
    found = {}
    head, theirs = model.roi_head.bbox_head, model.sources['t0'].model.roi_head.bbox_head
    listen(head, lambda result: found.update(call=result))
    hooks = [part.shared_fcs[1].register_forward_hook(lambda _, __, out, name=name: found.update({name: out.clone()}))
             for name, part in (('ours', head), ('theirs', theirs))]
    losses = losses_of(model, batch)
    for hook in hooks:
        hook.remove()
    del head.loss_and_target
    ours = model.terms[0].adapters[0](found['ours'], target_size=())
    return ours, found['theirs'], found['call']['bbox_targets'][0], losses


def test_the_term_is_the_formula_in_loops(teacher_checkpoint):
    model = distiller(teacher_checkpoint, alpha=0.25, beta=8.0)
    ours, theirs, labels, losses = features_and_labels(model, make_batch(objects=(3, 1)))
    total_loss, count = 0.0, 0
    for v, z, label in zip(ours.tolist(), theirs.tolist(), labels.tolist()):
        if label < 2:
            dot = sum(a * b for a, b in zip(v, z))
            total_loss += 1 - dot / math.sqrt(sum(a * a for a in v) * sum(b * b for b in z))
            count += 1
    assert 1 < count < len(labels) and float(losses['loss_cbd'].detach()) == pytest.approx(
        0.25 * 8 * total_loss / count, rel=1e-4)


def of_rank(rank, folder, cfg):
    """One step of a rank: how many foreground RoIs it has, the loss, and the adapter's gradient as DDP averages it."""
    model = build(cfg, 1)
    _, _, labels, losses = features_and_labels(model, make_batch(objects=((3, 3), (0, 1))[rank], seed=rank))
    losses['loss_cbd'].backward()
    gradient = model.terms[0].adapters[0].layers[0].weight.grad
    torch.save(dict(count=int((labels < 2).sum()), loss=float(losses['loss_cbd'].detach()), gradient=gradient),
               folder / f'{rank}.pth')


def test_a_foreground_roi_counts_the_same_on_each_of_two_ranks(teacher_checkpoint, tmp_path):
    cfg = config_of(teacher_checkpoint)
    forked(of_rank, tmp_path, cfg)
    alone = tmp_path / 'alone'
    alone.mkdir()
    for rank in (0, 1):
        of_rank(rank, alone, cfg)
    two, one = ([torch.load(folder / f'{rank}.pth') for rank in (0, 1)] for folder in (tmp_path, alone))
    counts = [rank['count'] for rank in one]
    assert counts == [rank['count'] for rank in two] and counts[0] > 2 * counts[1] > 0
    # the mean of the ranks is one process with all RoIs: sum of both sums by the sum of both counts
    for name in ('loss', 'gradient'):
        joint = sum(n * rank[name] for n, rank in zip(counts, one)) / sum(counts)
        torch.testing.assert_close(torch.as_tensor(sum(rank[name] for rank in two) / 2), torch.as_tensor(joint),
                                   rtol=1e-4, atol=1e-6)


def test_in_a_cascade_the_stage_that_the_layer_names_is_taught(tmp_path):
    """Its own RoIs and labels, its own CE, the weight of its stage."""
    path = save_checkpoint(build(cascade_rcnn(8), 3), tmp_path / 't.pth')

    def losses(terms):
        cfg = ConfigDict(cascade_rcnn(8))
        if terms:
            cfg.update(student_type=cfg.type, type='Distiller', terms=terms,
                       teacher=dict(config=cascade_rcnn(8), checkpoint=path))
        model = build(cfg, 1)
        labels = []
        for stage, head in enumerate(model.roi_head.bbox_head):
            def note(result, stage=stage):
                if stage == 0:  # fresh heads move no box, so that all stages have the same objects: the first has none
                    result['bbox_targets'][0].fill_(2)
                labels.append(result)
            listen(head, note)
        return model, losses_of(model, make_batch(objects=(3, 2))), [one['bbox_targets'][0] for one in labels]
    _, plain, _ = losses([])
    layer = 'roi_head.bbox_head.1.shared_fcs.1'
    model, found, labels = losses([dict(type='ClassBalancedDistillation', layer=layer, alpha=0.25, beta=8.0)])
    for stage, weight in enumerate((1, 0.75, 1)):
        assert float(found[f's{stage}.loss_cls']) == pytest.approx(weight * float(plain[f's{stage}.loss_cls'])), stage
    rows = []
    model.terms[0]._losses[0].forward = lambda ours, theirs, avg_factor: rows.append(
        (len(ours), float(avg_factor))) or ours.sum() * 0 + 1
    again = losses_of(model, make_batch(objects=(3, 2)))
    wanted = [int((one < 2).sum()) for one in labels[:3]]
    assert wanted[0] == 0 < wanted[1] and rows == [(wanted[1], wanted[1])]
    assert float(again['loss_cbd'].detach()) == model.roi_head.stage_loss_weights[1] == 0.5


def test_several_teachers_are_concatenated_and_alpha_0_is_plain(teacher_checkpoint):
    assert distiller(teacher_checkpoint, sources=2).terms[0].teacher_shapes[0][-1] == 64
    plain, model = losses_of(build(faster_rcnn_cfg(), 1), make_batch()), distiller(teacher_checkpoint, alpha=0.0)
    found = losses_of(model, make_batch())
    assert found.keys() == plain.keys() and torch.equal(found['loss_cls'], plain['loss_cls'])


@pytest.mark.parametrize('term, what', [
    (dict(alpha=2.0), 'alpha'), (dict(beta=-1), 'beta'), (dict(layer='neck'), 'roi_head'),
    (dict(loss=dict(type='HintLoss')), 'leave it out'),
    (dict(layer='roi_head.bbox_roi_extractor'), r'layer: .*one vector a RoI')])
def test_what_cannot_be_meant_is_refused(term, what, teacher_checkpoint):
    with pytest.raises(ConfigError, match=what):
        distiller(teacher_checkpoint, **term)
