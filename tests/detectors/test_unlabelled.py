"""Images without labels in a step: what acts on them, and what they leave alone."""
import copy

import pytest
import torch
import torch.nn.functional as F
from any_detector import DETECTORS, cascade_rcnn
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg, stirred
from mmdet.structures.bbox import get_box_tensor
from two_ranks import forked

from kd_det.detectors.unlabelled import PREFIX
from kd_det.errors import ConfigError

SIZES = ((96, 128), (64, 96))


def taught(teacher_checkpoint, **changes):
    cfg = faster_rcnn_cfg()
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', unlabelled=dict(weight=1.0), rpn_distill=dict(),
               rcnn_distill=dict(), hints=[dict(layer='neck', loss=dict(type='PKDLoss'))],
               teacher=dict(config=teacher_checkpoint[0].to_dict(), checkpoint=teacher_checkpoint[1]))
    cfg.update(changes)
    return cfg


def step(model, labelled, unlabelled):
    model.unlabelled.take(copy.deepcopy(unlabelled))
    return losses_of(model, copy.deepcopy(labelled))


def gradients(loss, model):
    model.zero_grad()
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.fixture
def batches():
    return make_batch(SIZES, (3, 1)), make_batch(SIZES, (2, 0), seed=5)


def test_the_ground_truths_losses_and_gradients_are_those_without(teacher_checkpoint, batches):
    """Bit for bit, and no loss is there for an image as background."""
    labelled, unlabelled = batches
    cfg = taught(teacher_checkpoint)
    alone = build(taught(teacher_checkpoint, unlabelled=None))
    model = build(cfg)
    one, two = losses_of(alone, copy.deepcopy(labelled)), step(model, labelled, unlabelled)
    added = {name: two[name] for name in two if name.startswith(PREFIX)}
    assert set(two) - set(one) == set(added) == {
        f'{PREFIX}loss_rpn_cls_distill', f'{PREFIX}loss_cls_distill', f'{PREFIX}loss_hint_neck'}
    assert model.distill_terms == [
        *alone.distill_terms[:2], f'{PREFIX}loss_rpn_cls_distill', *alone.distill_terms[2:4],
        f'{PREFIX}loss_cls_distill', 'loss_hint_neck', f'{PREFIX}loss_hint_neck']
    for a, b in zip(gradients(total(one), alone).values(), gradients(total({n: two[n] for n in one}), model).values()):
        assert torch.equal(a, b)
    for name, value in added.items():
        assert float(value) > 0 and any(g.abs().sum() > 0 for g in gradients(value, model).values()), name


def test_what_a_data_set_says_about_objects_is_not_read(teacher_checkpoint, batches):
    """Annotations in the unlabelled batch change nothing at all."""
    labelled, unlabelled = batches
    other = copy.deepcopy(unlabelled)
    for sample in other['data_samples']:
        sample.gt_instances.bboxes += 7
        sample.gt_instances.labels = 1 - sample.gt_instances.labels
    model = build(taught(teacher_checkpoint))
    state = copy.deepcopy(model.state_dict())
    one = step(model, labelled, unlabelled)
    model.load_state_dict(state)
    two = step(model, labelled, other)
    assert all(torch.equal(torch.as_tensor(one[name]), torch.as_tensor(two[name])) for name in model.distill_terms)


def test_rcnn_is_simclrs_cross_entropy_at_the_teachers_proposals(teacher_checkpoint, batches):
    labelled, unlabelled = batches
    model = build(taught(teacher_checkpoint, rpn_distill=None, hints=[], unlabelled=dict(weight=0.25),
                         rcnn_distill=dict(
        hard_weight=0.9, cls=dict(type='SoftTargetLoss', background_weight=1.0))))
    found = step(model, labelled, unlabelled)[f'{PREFIX}loss_cls_distill']
    data = model.data_preprocessor(copy.deepcopy(unlabelled), True)
    teacher, samples = model.teacher.model, data['data_samples']
    expected, count = 0.0, 0
    with torch.no_grad():
        features, theirs = model.extract_feat(data['inputs']), teacher.extract_feat(data['inputs'])
        proposed = teacher.rpn_head.predict(theirs, samples, rescale=False)
        for i, boxes in enumerate(proposed):
            boxes = get_box_tensor(boxes.bboxes)[:32]  # rcnn.sampler.num
            rois = torch.cat([boxes.new_full((len(boxes), 1), i), boxes], 1)
            z, t = (m.roi_head._bbox_forward(f, rois)['cls_score'] for m, f in ((model, features), (teacher, theirs)))
            for row in range(len(rois)):
                expected -= float((F.softmax(t[row], 0) * F.log_softmax(z[row], 0)).sum())
            count += len(rois)
    assert count > 32
    assert float(found) == pytest.approx(0.25 * expected / count, rel=1e-4)  # mu is for labels


def test_the_rpn_is_asked_where_the_teacher_sees_objects_and_never_in_padding(teacher_checkpoint):
    from kd_det.terms.rpn import _places_to_ask
    soft = torch.tensor([[5.0, -1, 4, 3, -2, -3, 9, 8], [1, 2, 3, 4, 5, 6, 7, 8]]).unsqueeze(-1)  # (2, 8, 1)
    inside = torch.ones(2, 8, dtype=torch.bool)
    inside[0, 6:] = False
    chosen = _places_to_ask(soft, inside, 4)
    first, second = (set(chosen[chosen // 8 == image].tolist()) for image in (0, 1))
    assert {0, 2} <= first and len(first) == 4 and not first & {6, 7}
    assert {14, 15} <= second and len(second) == 4
    assert len(_places_to_ask(soft, inside, 100)) == 14


def test_teacher_as_student_has_no_gradient(tmp_path, batches):
    cfg = faster_rcnn_cfg()
    path = save_checkpoint(build(cfg, seed=3), tmp_path / 't.pth')
    cls = dict(type='SoftTargetLoss', background_weight=1.0)
    model = build(taught((cfg, path), hints=[], rpn_distill=dict(cls=cls), rcnn_distill=dict(cls=cls)))
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'])
    model.eval()  # batch norms as the teacher's
    losses = step(model, *batches)
    for name in (f'{PREFIX}loss_rpn_cls_distill', f'{PREFIX}loss_cls_distill'):
        assert all(g.abs().max() < 1e-5 for g in gradients(losses[name], model).values()), name


def test_weights_and_the_choice_of_images(teacher_checkpoint, batches):
    labelled, unlabelled = batches
    whole = step(build(taught(teacher_checkpoint)), labelled, unlabelled)
    half = step(build(taught(teacher_checkpoint, unlabelled=dict(weight=0.5))), labelled, unlabelled)
    name = f'{PREFIX}loss_hint_neck'
    assert float(half[name]) == pytest.approx(0.5 * float(whole[name]))
    off = build(taught(teacher_checkpoint, unlabelled=dict(weight=0)))
    assert not any(n.startswith(PREFIX) for n in [*losses_of(off, copy.deepcopy(labelled)), *off.distill_terms])
    only = build(taught(teacher_checkpoint, rpn_distill=dict(images='labelled'),
                        rcnn_distill=dict(images='unlabelled')))
    found = step(only, labelled, unlabelled)
    assert {n for n in found if 'distill' in n or 'hint' in n} == set(only.distill_terms) == {
        'loss_rpn_cls_distill', 'loss_rpn_bbox_distill', f'{PREFIX}loss_cls_distill', 'loss_hint_neck', name}
    plain = losses_of(build(faster_rcnn_cfg()), labelled)
    assert torch.equal(found['loss_cls'], plain['loss_cls']), 'mu is for both words'


def test_without_ground_truth_labelled_images_are_not_trained_on_where_all_terms_act_on_the_others(teacher_checkpoint,
                                                                                                 batches):
    cfg = taught(teacher_checkpoint, ground_truth=False, rpn_distill=None, rcnn_distill=None,
                 hints=[dict(layer='neck', images='unlabelled')])
    assert list(step(build(cfg), *batches)) == [f'{PREFIX}loss_hint_neck']
    cfg.hints[0].update(start_epoch=1)  # where every term rests, training is plain
    assert {'loss_cls', 'loss_rpn_cls'} <= step(build(cfg), *batches).keys()


def test_the_plan_says_which_terms_act_where(teacher_checkpoint):
    model = build(taught(teacher_checkpoint, hints=[dict(layer='neck', loss=dict(type='FGDLoss')),
                                                    dict(layer='neck', images='unlabelled')]))
    plan = '\n'.join(model.plan())
    assert 'images without labels: weight 1' in plan
    assert f'rcnn_distill: {PREFIX}loss_cls_distill act on both'.replace(PREFIX, '') in plan
    assert 'hints[0]: loss_hint_neck_0 on images with labels only, which it needs' in plan
    assert 'hints[1]: loss_hint_neck_1 act on unlabelled images only' in plan


@pytest.mark.parametrize('changes, words', [
    (dict(hints=[dict(layer='neck', loss=dict(type='FGDLoss'), images='all')]),
     r'hints\[0\].images.*Hint needs ground truth: its masks are boxes'),
    (dict(rcnn_distill=dict(cls=None, images='unlabelled')),
     r'rcnn_distill.images.*RCNNDistillation needs ground truth: it has no soft loss'),
    (dict(unlabelled=None, hints=[dict(layer='neck', images='unlabelled')]), r'hints\[0\].images.*no such images'),
    (dict(unlabelled=dict(weight=-1)), 'model.unlabelled.weight'),
    (dict(unlabelled=dict(wieght=1)), "did you mean 'weight'"),
    (dict(unlabelled=1.0), 'model.unlabelled: found 1.0'),
    (dict(hints=[dict(layer='neck', images='unlabeled')]), r'hints\[0\].images'),
])
def test_what_cannot_be_meant_is_refused_by_name(teacher_checkpoint, changes, words):
    with pytest.raises(ConfigError, match=words):
        build(taught(teacher_checkpoint, **changes))


def test_a_step_without_a_batch_is_an_error(teacher_checkpoint, batches):
    with pytest.raises(RuntimeError, match='unlabelled'):
        losses_of(build(taught(teacher_checkpoint)), batches[0])


def test_cascades_and_ensembles(tmp_path, batches):
    """Later stages look at what the teacher made of its proposals; several teachers propose together."""
    cfg = cascade_rcnn(8)
    paths = [save_checkpoint(build(cascade_rcnn(8), seed=seed), tmp_path / f'{seed}.pth') for seed in (3, 4)]
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', unlabelled=dict(),
               rcnn_distill=dict(source=['a', 'b']), rpn_distill=dict(source='a'),
               sources={name: dict(config=cascade_rcnn(8).to_dict(), checkpoint=path)
                        for name, path in zip('ab', paths)})
    losses = step(build(cfg), *batches)
    assert {n for n in losses if n.startswith(PREFIX)} == {f'{PREFIX}loss_rpn_cls_distill', *(
        f'{PREFIX}s{i}.loss_cls_distill' for i in range(3))}
    assert all(torch.isfinite(torch.as_tensor(v)).all() for n, v in losses.items() if n.startswith(PREFIX))


def test_hints_of_dense_students(tmp_path, batches):
    cfg = dense_cfg('retinanet')
    path = save_checkpoint(build(dense_cfg('retinanet', width=16), seed=3), tmp_path / 't.pth')
    cfg.update(student_type=cfg.type, type='Distiller', unlabelled=dict(),
               teacher=dict(config=dense_cfg('retinanet', width=16).to_dict(), checkpoint=path),
               terms=[dict(type='Hint', layer='neck', loss=dict(type='CWDLoss')), dict(type='SoftLabel'),
                      dict(type='Hint', layer='backbone.layer3'), dict(type='Hint', layer='bbox_head.cls_convs.0')])
    model = build(cfg)
    losses = step(model, *batches)
    assert {n for n in losses if n.startswith(PREFIX)} == {f'{PREFIX}loss_{name}' for name in (
        'hint_neck', 'hint_backbone_layer3', 'hint_bbox_head_cls_convs_0', 'cls_distill', 'bbox_distill')}
    assert 'terms[1]: loss_cls_distill, loss_bbox_distill act on both' in '\n'.join(model.plan())


def test_bckd_divides_by_what_the_teacher_expects_and_leaves_padding_out(tmp_path):
    """Recomputed with loops over images and priors."""
    cfg, own = dense_cfg('atss', width=16), dense_cfg('atss')
    path = save_checkpoint(build(cfg, seed=3), tmp_path / 't.pth')
    own.update(student_type=own.type, type='Distiller', unlabelled=dict(),
               teacher=dict(config=cfg.to_dict(), checkpoint=path), terms=[dict(type='BCKD')])
    model, unlabelled = build(own), make_batch(SIZES, (2, 0), seed=5)
    found = step(model, make_batch(SIZES, (3, 1)), unlabelled)
    assert {name for name in found if name.startswith(PREFIX)} == {f'{PREFIX}loss_cls_bckd', f'{PREFIX}loss_bbox_bckd'}
    assert 'loss_centerness_bckd' in found
    data = model.data_preprocessor(copy.deepcopy(unlabelled), True)
    with torch.no_grad():
        ours, theirs = (m.bbox_head(m.extract_feat(data['inputs']))[0] for m in (model, model.teacher.model))
    total_loss, expected = 0.0, 0.0
    for level, (s, t) in enumerate(zip(ours, theirs)):
        stride = 8 * 2**level
        for n, (height, width) in enumerate(SIZES):
            for y in range(s.shape[2]):
                for x in range(s.shape[3]):
                    if x * stride >= width or y * stride >= height:
                        continue
                    p, q = s[n, :, y, x].sigmoid(), t[n, :, y, x].sigmoid()
                    expected += float(q.max())
                    total_loss += float((F.binary_cross_entropy(p, q, reduction='none') * (p - q).abs()).sum())
    assert expected > 1
    assert float(found[f'{PREFIX}loss_cls_bckd']) == pytest.approx(total_loss / expected, rel=1e-3)
    found[f'{PREFIX}loss_bbox_bckd'].backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def of_rank(rank, folder, cfg, parts):
    """What the terms are on a rank's share of the images without labels."""
    model = build(copy.deepcopy(cfg), 1).eval()  # norms that do not depend on the batch
    stirred(model) if hasattr(model, 'bbox_head') else None
    losses = step(model, make_batch(SIZES, (2, 1)), parts[rank])
    torch.save({name: float(value.detach()) for name, value in losses.items() if name.startswith(PREFIX)},
               folder / f'{rank}.pth')


@pytest.mark.parametrize('kind', ['dense', 'two-stage'])
def test_two_ranks_with_unequal_shares_are_one_process_with_all_images(kind, teacher_checkpoint, tmp_path):
    """And four images are two and two: all divisors are means over ranks, of numbers or of what the teacher expects."""
    if kind == 'dense':
        cfg, wide = dense_cfg('gfl'), dense_cfg('gfl', width=16)
        path = save_checkpoint(stirred(build(copy.deepcopy(wide), seed=3)), tmp_path / 't.pth')
        cfg.update(student_type=cfg.type, type='Distiller', unlabelled=dict(), terms=[
            dict(type='BCKD'), dict(type='SoftLabel', seen_from=0.012, min_iou=0.1), dict(type='LD', seen_from=0.012)],
            teacher=dict(config=wide.to_dict(), checkpoint=path))
    else:
        cfg = taught(teacher_checkpoint, hints=[])
        cfg.train_cfg.rpn.sampler.num = cfg.train_cfg.rcnn.sampler.num = 100_000  # every anchor and proposal
        cfg.teacher.config.test_cfg.rpn.update(max_per_img=1000, nms=dict(type='nms', iou_threshold=0.2))
    whole = make_batch(((96, 128), (96, 128), (96, 128), (64, 96)), (3, 2, 0, 1), seed=5)
    parts = [{key: copy.deepcopy(value[share]) for key, value in whole.items()} for share in (slice(0, 2), slice(2, 4))]
    forked(of_rank, tmp_path, cfg, parts)
    ranks = [torch.load(tmp_path / f'{rank}.pth') for rank in (0, 1)]
    (tmp_path / 'one').mkdir()
    of_rank(0, tmp_path / 'one', cfg, [whole])
    expected = torch.load(tmp_path / 'one' / '0.pth')
    assert set(expected) == {PREFIX + name for name in (
        ['loss_cls_bckd', 'loss_bbox_bckd', 'loss_cls_distill', 'loss_bbox_distill', 'loss_ld_vlr'] if kind == 'dense'
        else ['loss_rpn_cls_distill', 'loss_cls_distill'])}
    for name, value in expected.items():
        assert (ranks[0][name] + ranks[1][name]) / 2 == pytest.approx(value, rel=1e-4) != 0, name
        assert ranks[0][name] != pytest.approx(ranks[1][name], rel=1e-2), name  # numbers differ


@pytest.mark.parametrize('kind', ['deformable_detr', 'dino'])
def test_hints_of_transformers_find_no_object_on_the_way(tmp_path, kind):
    """DINO makes queries out of the ground truth; an unlabelled image has none."""
    cfg = DETECTORS[kind](8)
    path = save_checkpoint(build(DETECTORS[kind](16), seed=3), tmp_path / 't.pth')
    cfg.update(student_type=cfg.type, type='Distiller', unlabelled=dict(),
               teacher=dict(config=DETECTORS[kind](16).to_dict(), checkpoint=path),
               terms=[dict(type='Hint', layer='encoder.layers.0'), dict(type='Hint', layer='neck')])
    losses = step(build(cfg), make_batch(SIZES, (2, 1)), make_batch(SIZES, (2, 0), seed=5))
    added = {name for name in losses if name.startswith(PREFIX)}
    assert added == {f'{PREFIX}loss_hint_encoder_layers_0', f'{PREFIX}loss_hint_neck'}
    assert all(torch.isfinite(losses[name]) for name in added)


def test_two_resolutions(teacher_checkpoint):
    """The teacher proposes in its own larger view; the student answers for the same places in its own pixels."""
    cfg = teacher_checkpoint[0].copy()
    teacher = dict(config=cfg.to_dict(), checkpoint=teacher_checkpoint[1], scale_factor=2)
    model = build(taught(teacher_checkpoint, teacher=teacher, rpn_distill=None, hints=[]))
    seen = []
    heads = {'student': model.roi_head, 'teacher': model.teacher.model.roi_head}
    for name, head in heads.items():
        keep = head._bbox_forward
        head._bbox_forward = lambda features, rois, name=name, keep=keep: (
            seen.append((name, rois)) or keep(features, rois))
    losses = step(model, make_batch(SIZES, (2, 1), teacher_scale=2), make_batch(SIZES, (2, 0), seed=5, teacher_scale=2))
    assert torch.isfinite(losses[f'{PREFIX}loss_cls_distill'])
    (_, ours), (_, theirs) = [entry for entry in seen if entry[0] == 'student'][-1], seen[-1]
    assert seen[-1][0] == 'teacher' and len(ours) > 2
    torch.testing.assert_close(ours * ours.new_tensor([1, 2, 2, 2, 2]), theirs)
    assert theirs[:, 3].max() > 128, 'the teacher\'s pixels'
