"""BCKD: its formula with loops for every head, its normaliser, its limits."""
import copy
import functools
import math

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg, stirred
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import nn

from kd_det.errors import ConfigError
from kd_det.plain import student_model
from kd_det.terms import BCKD, dense, prediction

HEADS = ('retinanet', 'atss', 'gfl', 'fcos', 'paa', 'ddod', 'tood', 'rtmdet', 'yolox')
FACTORS = dict(atss='centerness', fcos='centerness', paa='iou', ddod='iou', yolox='objectness')
# a narrow image: its padding has label weight 0; an image without objects
BATCH = dict(sizes=((64, 96), (64, 64), (64, 96)), objects=(3, 2, 0), seed=3)
OFF = dict(cls=dict(loss_weight=0), bbox=None, score_factor=None)


pytestmark = pytest.mark.usefixtures('late_epoch')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')

    @functools.cache
    def of(kind, num_classes=2, seed=7):
        cfg = dense_cfg(kind, width=16, num_classes=num_classes)
        classes = ('disc', 'square', 'star')[:num_classes]
        return cfg, save_checkpoint(stirred(build(copy.deepcopy(cfg), seed)), folder / f'{kind}{num_classes}{seed}.pth',
                                    classes)
    return of


def source_of(taught):
    return dict(config=copy.deepcopy(taught[0]), checkpoint=taught[1], fuse_conv_bn=False, channels_last=False)


def taught_cfg(student, taught, *terms, **options):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='Distiller', teacher=source_of(taught),
               terms=[dict(type='BCKD', **term) if 'type' not in term else term for term in terms or ({},)], **options)
    return cfg


def still(model):
    """Batch norms without batch statistics, so that a batch can be split."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def model_of(kind, teacher, *terms, **options):
    return still(stirred(build(taught_cfg(dense_cfg(kind), teacher(kind), *terms, **options), 1)))


@pytest.fixture
def seen(monkeypatch):
    """What the term looked at in its last step: the student's and the teacher's outputs, and the targets."""
    found = {}

    def watch(name, function):
        def watched(*args):
            found[name] = function(*args)
            return found[name]
        return watched
    monkeypatch.setattr(prediction, 'student_outputs', watch('student', dense.student_outputs))
    monkeypatch.setattr(prediction, 'student_targets', watch('targets', dense.student_targets))
    monkeypatch.setattr(BCKD, 'teacher_outputs', watch('teacher', BCKD.teacher_outputs))
    return found


def giou_of(one, other):
    x1, y1, x2, y2 = one
    u1, v1, u2, v2 = other
    both = max(min(x2, u2) - max(x1, u1), 0) * max(min(y2, v2) - max(y1, v1), 0)
    union = (x2 - x1) * (y2 - y1) + (u2 - u1) * (v2 - v1) - both
    hull = (max(x2, u2) - min(x1, u1)) * (max(y2, v2) - min(y1, v1))
    return both / union - (hull - union) / hull


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bce(z, q):
    return -q * math.log(sigmoid(z)) - (1 - q) * math.log(sigmoid(-z))


# -- the formula
# --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', HEADS)
def test_terms_are_the_formula_in_loops(kind, teacher, seen):
    model = model_of(kind, teacher)
    losses = losses_of(model, make_batch(**BATCH))
    student, guide, targets = seen['student'], seen['teacher'], seen['targets']
    count, own = max(int(targets.positive.sum()), 1), max(int(targets.box.positive.sum()), 1)
    assert count > 1 and bool(targets.label_weights[1].all()) == (kind in ('fcos', 'yolox'))
    cls = bbox = factor = 0.0
    for i in range(3):
        ours, theirs = student.boxes(i).tolist(), guide.boxes(i).tolist()
        for p, (s, t) in enumerate(zip(student.logits[i].tolist(), guide.logits[i].tolist())):
            weight = float(targets.label_weights[i, p])
            apart = [abs(sigmoid(a) - sigmoid(b)) for a, b in zip(s, t)]
            cls += weight * sum(bce(a, sigmoid(b)) * d for a, b, d in zip(s, t, apart))
            if all(box[2] >= box[0] and box[3] >= box[1] and max(map(abs, box)) < 1e9 for box in (ours[p], theirs[p])):
                bbox += weight * max(apart) * (1 - giou_of(ours[p], theirs[p]))
            if kind in FACTORS and targets.box.positive[i, p]:
                factor += bce(float(student.factor[i, p]), sigmoid(float(guide.factor[i, p])))
    expected = dict(loss_cls_bckd=cls / count, loss_bbox_bckd=4 * bbox / count)
    if kind in FACTORS:
        expected[f'loss_{FACTORS[kind]}_bckd'] = factor / own
    assert model.distill_terms == list(expected)
    for name, value in expected.items():
        assert value > 0 and float(losses[name].detach()) == pytest.approx(value, rel=2e-3), name


def test_gradients_in_float64(teacher, seen):
    model = model_of('gfl', teacher)
    losses_of(model, make_batch(sizes=((64, 64),), objects=(1,)))
    term, student, guide = model.terms[0], seen['student'], seen['teacher']
    rows = slice(0, 6)
    logits, soft = (side.logits[:1, rows].detach().double() for side in (student, guide))
    weight = torch.rand(1, 6, dtype=torch.float64)
    count = torch.tensor(3.0, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: term.compare_classes(z, soft, None, count, weight),
                                    logits.requires_grad_())
    regression = student.regression[0, rows].detach().double().requires_grad_()
    head = model.bbox_head.double()

    def boxes(values):
        decoded = student.decode(head, values, student.priors[rows].double(), student.strides[rows].double())
        return term.compare_boxes(decoded, guide.boxes(0, rows).double(), weight.flatten(), count)
    assert torch.autograd.gradcheck(boxes, regression)


def test_the_box_parts_weight_is_a_constant_and_the_class_parts_is_not(teacher, seen):
    model = model_of('gfl', teacher, dict(cls=None))
    losses_of(model, make_batch(**BATCH))['loss_bbox_bckd'].backward()
    assert model.bbox_head.gfl_cls.weight.grad is None
    assert model.bbox_head.gfl_reg.weight.grad.any()
    model = model_of('gfl', teacher, dict(bbox=None))
    losses_of(model, make_batch(**BATCH))['loss_cls_bckd'].backward()
    assert model.bbox_head.gfl_cls.weight.grad.any() and model.bbox_head.gfl_reg.weight.grad is None


# -- limits
# -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', HEADS)
def test_a_student_with_its_teachers_weights_has_no_gradient(kind, teacher):
    cfg, path = teacher(kind)
    model = still(build(taught_cfg(cfg, (cfg, path)), 1))
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)
    losses = losses_of(model, make_batch(**BATCH))
    assert float(losses['loss_cls_bckd']) == float(losses['loss_bbox_bckd']) == 0
    for name in model.distill_terms:
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        gradients = [p.grad.abs().max() for p in model.parameters() if p.grad is not None]
        assert float(max(gradients, default=torch.tensor(0.0))) < 1e-6, name


@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'yolox'])
def test_levels_without_positives_are_taught_too(kind, teacher, seen):
    model = model_of(kind, teacher)
    losses = losses_of(model, make_batch(**BATCH))
    student, targets = seen['student'], seen['targets']
    empty = [i for i, level in enumerate(targets.per_level(targets.positive)) if not level.any()]
    assert empty
    by_logits, = torch.autograd.grad(losses['loss_cls_bckd'], student.logits, retain_graph=True)
    by_boxes, = torch.autograd.grad(losses['loss_bbox_bckd'], student.regression)
    for i in empty:
        assert targets.per_level(by_logits)[i].any() and targets.per_level(by_boxes)[i].any()


@pytest.mark.parametrize('kind', HEADS)
def test_a_batch_without_objects_is_taught_and_finite(kind, teacher, seen):
    model = model_of(kind, teacher)
    losses = losses_of(model, make_batch(sizes=((64, 64),) * 2, objects=(0, 0)))
    assert float(seen['targets'].normaliser) == 1
    assert float(losses['loss_cls_bckd']) > 0 and float(losses['loss_bbox_bckd']) > 0
    if kind in FACTORS:
        assert float(losses[f'loss_{FACTORS[kind]}_bckd']) == 0
    total(losses).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_boxes_turned_inside_out_are_left_out(teacher):
    """RTMDet without exp_on_reg predicts distances below 0; a GIoU loss on such boxes falls without end."""
    cfg, path = teacher('rtmdet')
    cfg = copy.deepcopy(cfg)
    model = still(build(taught_cfg(cfg, (cfg, path)), 1))
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)
    with torch.no_grad():
        for layer in model.bbox_head.rtm_cls:
            layer.bias += 1  # scores differ
        for layer in model.bbox_head.rtm_reg:
            layer.bias.copy_(torch.tensor([-9.0, 3.0, 3.0, 3.0]))
    assert not model.bbox_head.exp_on_reg
    losses = losses_of(model, make_batch(**BATCH))
    assert float(losses['loss_cls_bckd']) > 0 and float(losses['loss_bbox_bckd']) == 0
    losses['loss_bbox_bckd'].backward()
    assert all(not layer.bias.grad.any() for layer in model.bbox_head.rtm_reg)


def test_boxes_without_end_are_left_out(teacher, seen):
    """YOLOX's sizes are exponentials; those of a teacher that means nothing somewhere can run away there."""
    model = model_of('yolox', teacher)
    with torch.no_grad():
        for layer in model.teacher.model.bbox_head.multi_level_conv_reg[1:]:
            layer.bias[2:] += 200
    losses = losses_of(model, make_batch(**BATCH))
    boxes = seen['teacher'].all_boxes()
    assert not boxes.isfinite().all() and float(losses['loss_bbox_bckd']) > 0
    gradient, = torch.autograd.grad(losses['loss_bbox_bckd'], seen['student'].regression)
    per_level = seen['targets'].per_level(gradient)
    assert per_level[0].any() and not per_level[1].any() and bool(gradient.isfinite().all())


# -- the normaliser
# -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'paa', 'yolox'])
def test_four_images_are_two_and_two(kind, teacher, seen):
    model = model_of(kind, teacher)
    whole = make_batch(sizes=((64, 96),) * 4, objects=(3, 1, 0, 2), seed=5)
    sums = dict.fromkeys(model.distill_terms, 0.0)

    def add(sign, batch):
        losses = losses_of(model, batch)
        for name in sums:
            of = seen['targets'] if name in ('loss_cls_bckd', 'loss_bbox_bckd') else seen['targets'].box
            sums[name] += sign * float(losses[name].detach()) * float(of.normaliser)
    add(1, copy.deepcopy(whole))
    before = dict(sums)
    for part in (slice(0, 2), slice(2, 4)):
        add(-1, {key: copy.deepcopy(value[part]) for key, value in whole.items()})
    for name, value in sums.items():
        assert before[name] > 0 and abs(value) < 1e-4 * before[name], name


def rank_gradients(rank, folder, cfg, batches):
    """What one of two ranks has after DDP's averaging."""
    import torch.distributed as dist
    dist.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
    model = still(stirred(build(cfg, 1)))
    losses = losses_of(model, batches[rank])
    sum(losses[name] for name in model.distill_terms).backward()
    gradients = {name: p.grad / 2 for name, p in model.named_parameters() if p.grad is not None}
    for gradient in gradients.values():
        dist.all_reduce(gradient)
    torch.save(gradients, f'{folder}/rank{rank}.pth')
    dist.destroy_process_group()


@pytest.mark.parametrize('kind', ['retinanet', 'paa'])
def test_two_ranks_with_unequal_positives_are_one_process_with_all_images(kind, teacher, seen, tmp_path):
    whole = make_batch(sizes=((64, 96),) * 4, objects=(4, 3, 0, 1), seed=5)
    parts = [{key: copy.deepcopy(value[part]) for key, value in whole.items()} for part in (slice(0, 2), slice(2, 4))]
    cfg = taught_cfg(dense_cfg(kind), teacher(kind))
    processes = [torch.multiprocessing.get_context('fork').Process(
        target=rank_gradients, args=(rank, tmp_path, copy.deepcopy(cfg), parts)) for rank in range(2)]
    for process in processes:
        process.start()
    model = still(stirred(build(cfg, 1)))
    losses = losses_of(model, whole)
    sum(losses[name] for name in model.distill_terms).backward()
    per_image = seen['targets'].positive.sum(1).tolist()
    assert sum(per_image[:2]) != sum(per_image[2:]) > 0
    for process in processes:
        process.join()
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1))
    for name, p in model.named_parameters():
        if p.grad is not None:
            torch.testing.assert_close(first[name], p.grad, rtol=1e-3, atol=1e-6)
            assert torch.equal(first[name], second[name])


# -- in a detector
# ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', HEADS)
def test_one_step_teaches_every_branch_and_the_checkpoint_is_the_plain_students(kind, teacher, tmp_path):
    cfg = taught_cfg(dense_cfg(kind), teacher(kind))
    model = stirred(build(copy.deepcopy(cfg), 1))
    plain = build(student_model(cfg), 2)
    losses = losses_of(model, make_batch(**BATCH))
    own = losses_of(plain, make_batch(**BATCH))
    assert list(losses) == list(own) + model.distill_terms  # the student's own losses are all there
    sum(losses[name] for name in model.distill_terms).backward()
    # blocks of a fresh ResNet end in a zero, so that nothing reaches their inside
    assert not [name for name, p in model.named_parameters() if not name.startswith('backbone.layer')
                and (p.grad is None or not p.grad.any())]
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    optimizer.step()
    path = save_checkpoint(model, tmp_path / 'c.pth')
    plain.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)


@pytest.mark.parametrize('kind', HEADS)
def test_weights_0_are_the_plain_detector_bit_for_bit(kind, teacher):
    cfg = taught_cfg(dense_cfg(kind), (teacher(kind)[0], '/nowhere.pth'), OFF)
    model, plain = build(copy.deepcopy(cfg), 1), build(student_model(cfg), 1)
    assert model.distill_terms == [] and 'NOTHING' in model.plan()[-1]
    for seed in range(2):
        found, expected = (losses_of(network, make_batch(**BATCH), seed) for network in (model, plain))
        assert found.keys() == expected.keys()
        for network, losses in ((model, found), (plain, expected)):
            network.zero_grad()
            total(losses).backward()
            torch.optim.SGD(network.parameters(), lr=0.001).step()
    state = plain.state_dict()
    assert list(state) == list(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_students_own_losses_and_their_random_state_are_untouched(teacher):
    for kind in ('gfl', 'paa'):
        cfg = taught_cfg(dense_cfg(kind), teacher(kind))
        own, together = (losses_of(build(one, 1), make_batch(**BATCH))
                         for one in (student_model(cfg), copy.deepcopy(cfg)))
        for name, value in own.items():
            values = zip(value, together[name]) if isinstance(value, list) else [(value, together[name])]
            assert all(torch.equal(one, other) for one, other in values), name


def test_training_moves_the_student_towards_the_teacher_and_only_the_student(teacher):
    model = model_of('gfl', teacher)
    frozen = copy.deepcopy(model.teacher.model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for _ in range(12):
        losses = losses_of(model, make_batch(**BATCH))
        optimizer.zero_grad()
        sum(losses[name] for name in model.distill_terms).backward()
        optimizer.step()
        history.append([float(losses[name].detach()) for name in model.distill_terms])
    assert all(last < 0.7 * first for first, last in zip(history[0], history[-1])), history
    assert all(torch.equal(value, frozen[name]) for name, value in model.teacher.model.state_dict().items())


@pytest.mark.parametrize('student, taught', [('gfl', 'atss'), ('atss', 'fcos'), ('fcos', 'gfl'), ('rtmdet', 'yolox')])
def test_heads_of_different_kinds_meet_where_their_priors_do(student, taught, teacher):
    model = still(stirred(build(taught_cfg(dense_cfg(student), teacher(taught)), 1)))
    losses = losses_of(model, make_batch(**BATCH))
    wanted = ['loss_cls_bckd', 'loss_bbox_bckd'] + ['loss_centerness_bckd'] * (student == 'atss')
    assert model.distill_terms == wanted and all(float(losses[name]) > 0 for name in wanted)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_beside_label_assignment_the_replayed_positives_count(order, teacher, seen):
    both = [dict(type='LabelAssignment'), dict(type='BCKD')]
    model = model_of('paa', teacher, *(both[i] for i in order))
    losses = losses_of(model, make_batch(**BATCH))
    assert float(losses['teacher_positives']) * 3 == pytest.approx(float(seen['targets'].normaliser))


def test_two_terms_share_what_they_hear(teacher):
    model = model_of('gfl', teacher, dict(bbox=None), dict(cls=None), dict(type='SoftLabel'))
    calls = []
    model.teacher.model.bbox_head.register_forward_hook(lambda *args: calls.append(1))
    losses = losses_of(model, make_batch(**BATCH))
    alone = losses_of(model_of('gfl', teacher), make_batch(**BATCH))
    assert len(calls) == 1
    for name in ('loss_cls_bckd', 'loss_bbox_bckd'):
        assert torch.equal(losses[name], alone[name])
    with pytest.raises(ConfigError, match=r'terms\[1\].name: terms\[0\] logs loss_cls_bckd too'):
        model_of('gfl', teacher, {}, {})


@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'paa'])
def test_priors_that_the_assigner_ignores_have_no_gradient(kind, teacher, seen):
    cfg = taught_cfg(dense_cfg(kind), teacher(kind))
    cfg.train_cfg.assigner = dict(type='IgnoringAssigner', assigner=cfg.train_cfg.assigner, iof=0.3)
    model = still(stirred(build(cfg, 1)))
    batch = make_batch(sizes=((64, 96),) * 2, objects=(2, 0), seed=3)
    for sample in batch['data_samples']:
        sample.ignored_instances = InstanceData(bboxes=torch.tensor([[0., 0., 48., 64.]]), labels=torch.tensor([0]))
    losses = losses_of(model, batch)
    weights, student = seen['targets'].label_weights, seen['student']
    ignored = weights == 0
    assert ignored.any(1).all() and not ignored.all()
    for name, output in (('loss_cls_bckd', student.logits), ('loss_bbox_bckd', student.regression)):
        gradient, = torch.autograd.grad(losses[name], output, retain_graph=True)
        assert not gradient[ignored].any() and gradient[~ignored].any(-1).float().mean() > 0.9


@pytest.mark.parametrize('kind', ['gfl', 'yolox'])
def test_recorded_answers_teach_the_same(kind, teacher, tmp_path):
    """All that is asked of the teacher comes from the disk, boxes of distributions too; its network has no memory."""
    def recorded(**record):
        cfg = taught_cfg(dense_cfg(kind), teacher(kind))
        cfg.teacher.update(check=0, record=dict(folder=str(tmp_path), **record))
        model = still(stirred(build(cfg, 1)))
        losses = losses_of(model, make_batch(**BATCH))
        return model.teacher, {name: float(losses[name].detach()) for name in model.distill_terms}
    first, written = recorded()
    first.shards.flush()
    second, read = recorded(missing='error')
    live = model_of(kind, teacher)
    losses = losses_of(live, make_batch(**BATCH))
    assert second.counts == dict(read=3, asked=0) and read == written
    assert read == {name: pytest.approx(float(losses[name].detach()), rel=2e-3) for name in live.distill_terms}


def test_half_precision(teacher):
    model = model_of('gfl', teacher)
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, make_batch(**BATCH))
    whole = losses_of(model, make_batch(**BATCH))
    for name in model.distill_terms:
        assert losses[name].dtype == torch.float32
        assert float(losses[name].detach()) == pytest.approx(float(whole[name].detach()), rel=0.1)


# -- several teachers
# ---------------------------------------------------------------------------------------------------
def ensemble(student, sources, members):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='Distiller', sources=dict(
        **{name: source_of(one) for name, one in sources.items()}, all=dict(type='Ensemble', members=members)),
        terms=[dict(type='BCKD', source='all')])
    return still(stirred(build(cfg, 1)))


def test_an_ensemble_teaches_its_mean_probabilities_and_boxes(teacher, seen):
    sources = dict(a=teacher('gfl'), b=teacher('gfl', seed=8))
    model = ensemble(dense_cfg('gfl'), sources, dict(a=dict(weight=1.0), b=dict(weight=3.0)))
    losses = losses_of(model, make_batch(**BATCH))
    found, alone = seen['teacher'], []
    for one in sources.values():
        losses_of(still(stirred(build(taught_cfg(dense_cfg('gfl'), one), 1))), make_batch(**BATCH))
        alone.append(seen['teacher'])
    torch.testing.assert_close(found.logits.sigmoid(), (alone[0].logits.sigmoid() + 3 * alone[1].logits.sigmoid()) / 4)
    torch.testing.assert_close(found.all_boxes(), (alone[0].all_boxes() + 3 * alone[1].all_boxes()) / 4)
    assert all(float(losses[name]) > 0 for name in model.distill_terms)


def test_teachers_speak_about_their_own_classes(teacher, seen):
    """Teacher a knows classes 2 and 0, b class 0; nobody knows class 1."""
    model = ensemble(dense_cfg('gfl', num_classes=3), dict(a=teacher('gfl'), b=teacher('gfl', num_classes=1)),
                     dict(a=dict(classes=[2, 0]), b=dict(classes=[0])))
    losses = losses_of(model, make_batch(**BATCH, num_classes=3))
    found, student = seen['teacher'], seen['student']
    by_logits, = torch.autograd.grad(losses['loss_cls_bckd'], student.logits, retain_graph=True)
    assert not by_logits[..., 1].any() and by_logits[..., 0].any() and by_logits[..., 2].any()
    apart = prediction.score_distance(student, found, torch.tensor([True, False, True]))
    expected = (found.logits.sigmoid() - student.logits.sigmoid()).abs()[..., [0, 2]].amax(-1)
    torch.testing.assert_close(apart, expected.detach())
    # at each prior a member counts by its surest class
    answers = [one.dense_outputs() for one in model_passes(model)]
    sure = [one.logits.sigmoid().amax(-1, keepdim=True) for one in answers]
    weights = model.sources['all']._weights
    share = (weights / weights.sum(0).clamp(min=1e-12)).sum(1)
    assert float(share[0] / share[1]) == pytest.approx(3)  # a: half of class 0 and class 2; b: half of class 0
    boxes = (3 * sure[0] * answers[0].all_boxes() + sure[1] * answers[1].all_boxes()) / (3 * sure[0] + sure[1])
    torch.testing.assert_close(found.all_boxes(), boxes, rtol=1e-3, atol=1e-2)


def model_passes(model):
    data = model.data_preprocessor(make_batch(**BATCH, num_classes=3), True)
    return [model.sources[name].open(data['inputs'], data['data_samples']) for name in ('a', 'b')]


# -- configs
# ------------------------------------------------------------------------------------------------------------
def test_the_plan_says_what_is_compared(teacher):
    lines = model_of('atss', teacher, dict(bbox=dict(loss_weight=2.0), stop_epoch=10)).plan()
    text = '\n'.join(lines)
    assert "BCKD <- teacher, divided by the positives of ATSSHead's assigner (mean over ranks, at least 1)" in text
    assert 'classes, all priors of all levels: ModulatedBCELoss (beta=1.0, loss_weight=1.0)' in text
    assert 'weighted by the largest score difference: GIoULoss (loss_weight=2.0)' in text
    assert 'centerness, positives: SoftBCELoss' in text and 'epoch' in text


def test_pairs_and_settings_that_do_not_fit_are_refused(teacher):
    def refused(match, student, taught, term=None, **options):
        with pytest.raises(ConfigError, match=match):
            build(taught_cfg(student, taught, term or {}, **options))
    gfl = teacher('gfl')
    softmax = dense_cfg('retinanet')
    softmax.bbox_head.loss_cls = ConfigDict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    refused(r'bbox_head: this RetinaHead scores with a softmax.*SoftLabel takes', softmax, teacher('retinanet'))
    refused(r'sources.teacher.config|teacher.config: this RetinaHead scores with a softmax', dense_cfg('retinanet'),
            (softmax, '/nowhere.pth'))
    refused(r'VFNetHead', dense_cfg('vfnet'), gfl)
    refused(r'which priors of FSAFHead are positive cannot be heard', dense_cfg('fsaf'), teacher('fsaf'))
    refused(r'student scores 3 classes', dense_cfg('gfl', num_classes=3), gfl)
    refused(r'\[9, 9, 9, 9, 9\] priors a place', dense_cfg('retinanet'), gfl)
    refused(r'model.ground_truth: False, and terms\[0\] is divided by the positives', dense_cfg('gfl'), gfl,
            ground_truth=False)
    refused(r'terms\[0\]: unknown keys .*beta', dense_cfg('gfl'), gfl, dict(beta=2))
    refused(r'terms\[0\].cls: .*beta must be 0, or 1 or larger', dense_cfg('gfl'), gfl, dict(cls=dict(beta=0.5)))
    refused(r'terms\[0\].bbox.loss_weight: .*-1', dense_cfg('gfl'), gfl, dict(bbox=dict(loss_weight=-1)))
    refused(r'terms\[0\].bbox.type: .*compares boxes; a loss that compares decoded boxes', dense_cfg('gfl'), gfl,
            dict(bbox=dict(type='BoxMimicryLoss')))
    refused(r'terms\[0\].score_factor: .*GFLHead has None', dense_cfg('gfl'), gfl, dict(score_factor=dict()))
    refused(r'terms\[0\].cls: found 3; a dict or None', dense_cfg('gfl'), gfl, dict(cls=3))
    refused(r'dense bbox_head', faster_rcnn_cfg(), gfl)
