"""CrossKD: the formula by loops through every head, what gets a gradient, limits, pairs of different shape."""
import copy
import functools
import math

import pytest
import torch
from conftest import build, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg, stirred
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError
from kd_det.heads.dense_outputs import DenseOutputs, decoder_of, training_format
from kd_det.heads.dense_targets import DenseTargets
from kd_det.terms import cross_head

HEADS = ('retinanet', 'fcos', 'atss', 'gfl', 'paa', 'ddod', 'rtmdet', 'yolox')
FACTORS = dict(atss='centerness', paa='iou', ddod='iou')
# a narrow image in a wide batch, one without objects; some levels have no positives
BATCH = dict(sizes=((64, 96), (64, 64), (64, 96)), objects=(3, 2, 0), seed=3)
SLOW = dict(fuse_conv_bn=False, channels_last=False)


pytestmark = pytest.mark.usefixtures('late_epoch')


def dense(kind, width=8, **head):
    return dense_cfg(kind, width=width, **dict(dict(stacked_convs=3), **head))


def lively(model, seed=0):
    """Heads that predict one thing here and another there; with batch norms in eval mode that takes more."""
    torch.manual_seed(seed)
    stirred(model)
    if any(isinstance(module, torch.nn.BatchNorm2d) for module in model.bbox_head.modules()):
        with torch.no_grad():
            for parameter in model.bbox_head.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')

    @functools.cache
    def of(kind, name='', **head):
        cfg = dense(kind, width=16, **head)
        return cfg, save_checkpoint(lively(build(cfg, 7)), folder / f'{kind}{name}{len(head)}{hash(str(head))}.pth')
    return of


def cross_cfg(student, taught, fast=SLOW, more=(), sources=None, **term):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='Distiller', terms=[dict(type='CrossHead', **copy.deepcopy(term)), *more])
    teacher = dict(config=copy.deepcopy(taught[0]), checkpoint=taught[1], **fast)
    cfg.update(sources=sources) if sources else cfg.update(teacher=teacher)
    return cfg


def crossed(losses):
    return {name: value for name, value in losses.items() if '_cross' in name}


# -- an independent reference
# --------------------------------------------------------------------------------------------
def tower_outputs(model, inputs, k, half=None):
    """What convolution k of both towers hands to its activation, level by level, by running ConvModules by hand."""
    head, found = model.bbox_head, {'cls': [], 'bbox': []}
    for level, feature in enumerate(model.extract_feat(inputs)):
        for branch in found:
            x = feature
            convs = convs_of(head, branch, level)
            for i in range(k):
                x = convs[i](x, activate=i < k - 1)
            found[branch].append(x)
    return found


def convs_of(head, branch, level):
    if hasattr(head, 'multi_level_cls_convs'):
        return (head.multi_level_cls_convs if branch == 'cls' else head.multi_level_reg_convs)[level]
    convs = head.cls_convs if branch == 'cls' else head.reg_convs
    return convs[level] if not hasattr(convs[0], 'conv') else convs


def predictors(kind, head, level, c, b):
    """Scores, boxes and the branch beside them from what leaves the towers at one level, as each paper's head has it.
    """
    stride = head.prior_generator.strides[level][0]
    if kind == 'retinanet':
        return head.retina_cls(c), head.retina_reg(b), None
    if kind == 'gfl':
        return head.gfl_cls(c), head.gfl_reg(b) * head.scales[level].scale, None
    if kind in ('atss', 'paa', 'ddod'):
        factor = head.atss_iou(b) if kind == 'ddod' else head.atss_centerness(b)
        boxes = head.atss_reg(b)
        return head.atss_cls(c), boxes * head.scales[level].scale, factor
    if kind == 'fcos':
        boxes = head.conv_reg(b) * head.scales[level].scale
        boxes = boxes.relu() if head.norm_on_bbox else boxes.exp()
        return head.conv_cls(c), boxes, head.conv_centerness(b if head.centerness_on_reg else c)
    if kind == 'rtmdet':
        boxes = head.rtm_reg[level](b)
        return head.rtm_cls[level](c), (boxes.exp() if head.exp_on_reg else boxes) * stride, None
    return (head.multi_level_conv_cls[level](c), head.multi_level_conv_reg[level](b),
            head.multi_level_conv_obj[level](b))


def by_hand(kind, student, teacher, inputs, k, k_teacher):
    """The crossed predictions: standardise, scale, activate, go on by hand."""
    head, levels = teacher.bbox_head, []
    ours, theirs = tower_outputs(student, inputs, k), tower_outputs(teacher, inputs, k_teacher)
    for level in range(len(ours['cls'])):
        towers = []
        for branch in ('cls', 'bbox'):
            f, t = ours[branch][level].double(), theirs[branch][level].double()
            mean, var = f.mean((0, 2, 3), keepdim=True), f.var((0, 2, 3), correction=0, keepdim=True)
            x = (f - mean) / (var + 1e-8).sqrt() * (t.var((0, 2, 3), correction=0, keepdim=True) + 1e-8).sqrt()
            x = (x + t.mean((0, 2, 3), keepdim=True)).float()
            convs = convs_of(head, branch, level)
            x = torch.relu(x) if type(convs[0].activate).__name__ == 'ReLU' else x * torch.sigmoid(x)
            for convolution in list(convs)[k_teacher:]:
                x = convolution(x)
            towers.append(x)
        levels.append(predictors(kind, head, level, *towers))
    outputs = tuple([level[i] for level in levels] for i in range(3 if levels[0][2] is not None else 2))
    return DenseOutputs.of(head, decoder_of(head, 'x'), outputs)


def giou(one, other):
    a, b = [float(v) for v in one], [float(v) for v in other]
    if a[2] < a[0] or a[3] < a[1]:
        return None  # turned inside out
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    union = max((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both, 1e-6)
    hull = max((max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1])), 1e-6)
    return both / union - (hull - union) / hull, both / union


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def bce(z, p):
    return p * math.log1p(math.exp(-z)) + (1 - p) * (math.log1p(math.exp(-z)) + z)


def loops(kind, found, own, targets, centerness=None, positives=None):
    """The three terms, prior after prior; ``positives`` of the student's assigner, unless it is given."""
    cls = box = factor = weights = 0.0
    boxes, goals = found.all_boxes(), own.all_boxes()
    positives = max(int(targets.positive.sum()) if positives is None else positives, 1)
    box_positives = max(int(targets.box.positive.sum()), 1)
    for n in range(len(found.logits)):
        for p in range(found.logits.shape[1]):
            scores = [sigmoid(float(t)) for t in own.logits[n, p]]
            for z, score in zip(found.logits[n, p].tolist(), scores):
                cls += float(targets.label_weights[n, p]) * bce(z, score) * abs(score - sigmoid(z))
            v = max(scores) if float(targets.box.label_weights[n, p]) > 0 else 0.0
            if kind == 'gfl':
                z, t = (side.regression[n, p].double().view(4, -1).log_softmax(1) for side in (found, own))
                box += v * 4 * float((t.exp() * (t - z)).mean())
            elif float(goals[n, p, 2]) > float(goals[n, p, 0]) and float(goals[n, p, 3]) > float(goals[n, p, 1]):
                overlap = giou(boxes[n, p], goals[n, p])
                if overlap is not None:
                    box += v * (-0.75 * math.log(max(overlap[1], 1e-6)) if kind == 'fcos' else 1 - overlap[0])
            else:
                v = 0.0
            weights += v
            if found.factor is not None and bool(targets.box.positive[n, p]):
                factor += bce(float(found.factor[n, p]), sigmoid(float(own.factor[n, p])))
    box = box / max(centerness, 1) if centerness is not None else box / weights
    return (0.4 if kind == 'fcos' else 1) * cls / positives, box, factor / box_positives


@pytest.mark.parametrize('kind', HEADS)
def test_formula_by_loops(kind, teacher, monkeypatch):
    model = lively(build(cross_cfg(dense(kind), teacher(kind)), 1), seed=1).eval()  # norms as when run once more
    left = 2 if kind == 'fcos' else 1
    term = model.terms[0]
    assert (term.k, term.teacher_k) == (3 - left, 3 - left)
    heard = {}
    listen = cross_head.student_targets
    monkeypatch.setattr(cross_head, 'student_targets', lambda step: heard.setdefault('targets', listen(step)))
    if kind == 'fcos':
        measure = model.bbox_head.centerness_target
        model.bbox_head.centerness_target = lambda boxes: heard.setdefault('centerness', measure(boxes))
    losses = crossed(losses_of(model, make_batch(**BATCH)))
    data = model.data_preprocessor(make_batch(**BATCH), True)
    inputs = data['inputs']
    with torch.no_grad():
        found = by_hand(kind, model, model.teacher.model, inputs, term.k, term.teacher_k)
        guide = model.teacher.model
        with training_format(guide.bbox_head):
            outputs = guide.bbox_head(guide.extract_feat(inputs))
        own = DenseOutputs.of(guide.bbox_head, decoder_of(guide.bbox_head, 'x'), outputs)
    targets = heard['targets']
    assert targets.positive.any() and not targets.positive[2].any()
    assert any(not level.any() for level in targets.per_level(targets.positive)), 'every level has positives'
    assert (targets.label_weights == 0).any() or kind in ('fcos', 'yolox', 'rtmdet')
    centerness = float(heard['centerness'].detach().sum()) if kind == 'fcos' else None
    cls, box, factor = loops(kind, found, own, targets, centerness)
    expected = dict(loss_cls_cross=cls, loss_bbox_cross=box)
    if kind in FACTORS:
        expected[f'loss_{FACTORS[kind]}_cross'] = factor
    assert list(losses) == list(expected) == term.names()
    for name, value in expected.items():
        assert value > 1e-4 and float(losses[name]) == pytest.approx(value, rel=1e-3), name


@pytest.mark.parametrize('kind', ['gfl', 'fcos', 'atss'])
def test_on_images_without_labels_it_is_the_formula_with_the_teachers_expectations(kind, teacher):
    """By loops: N and the sum of centerness are expected values under the teacher; padding and the third part are out.
    """
    cfg = cross_cfg(dense(kind), teacher(kind))
    model = lively(build(dict(cfg, unlabelled=dict(weight=1.0)), 1), seed=1).eval()
    sizes, term = BATCH['sizes'], model.terms[0]
    model.unlabelled.take(make_batch(**BATCH))
    losses = losses_of(model, make_batch(sizes=((64, 96),), objects=(2,)))
    inputs = model.data_preprocessor(make_batch(**BATCH), True)['inputs']
    with torch.no_grad():
        found = by_hand(kind, model, model.teacher.model, inputs, term.k, term.teacher_k)
        own = model.teacher.open(inputs, []).dense_outputs()
    inside, expected, centerness = torch.zeros(len(sizes), len(own.priors)), 0.0, 0.0
    for n, (height, width) in enumerate(sizes):
        for p, prior in enumerate(own.priors.tolist()):
            x, y = prior[:2] if len(prior) == 2 else ((prior[0] + prior[2]) / 2, (prior[1] + prior[3]) / 2)
            if 0 <= x < width and 0 <= y < height:
                best = max(sigmoid(z) for z in own.logits[n, p].tolist())
                inside[n, p], expected = 1, expected + best
                centerness += best * (sigmoid(float(own.factor[n, p])) if kind == 'fcos' else 0)
    assert not inside[1].all() and expected > 1
    targets = DenseTargets(torch.zeros_like(inside) > 0, inside, own.level_sizes)
    cls, box, _ = loops(kind, found, own, targets, centerness if kind == 'fcos' else None, expected)
    names = [name for name in losses if name.startswith('unlabelled')]
    assert names == ['unlabelled.loss_cls_cross', 'unlabelled.loss_bbox_cross']
    for name, value in zip(names, (cls, box)):
        assert value > 1e-4 and float(losses[name].detach()) == pytest.approx(value, rel=1e-3), name
    sum(losses[name] for name in names).backward()
    head = model.bbox_head
    taught = {name for name, p in head.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert taught and all('_convs.' in name for name in taught), 'the predictors see the ground truth alone'
    assert all(p.grad is None for p in model.teacher.model.parameters())


# -- what gets a gradient
# ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', HEADS)
def test_only_what_lies_before_the_crossing_learns_and_the_teacher_stays_bit_equal(kind, teacher):
    model = lively(build(cross_cfg(dense(kind), teacher(kind)), 1), seed=1)
    guide = model.teacher.model
    losses_of(model, make_batch(**BATCH))  # reads the weights
    before = copy.deepcopy(guide.state_dict())
    losses = losses_of(model, make_batch(**BATCH))
    total(crossed(losses)).backward(retain_graph=True)
    k, head = model.terms[0].k, model.bbox_head
    learns = {name for name, p in head.named_parameters() if p.grad is not None and bool(p.grad.any())}
    assert learns, 'nothing is taught'
    shared = {f'{t}_convs.0.{i}.conv.weight' for t in ('cls', 'reg') for i in range(k)} if kind == 'rtmdet' else set()
    for name, parameter in head.named_parameters():
        tower, _, rest = name.partition('_convs.')
        inside = tower.endswith(('cls', 'reg')) and rest and [int(i) for i in rest.split('.') if i.isdigit()][-1] < k
        assert inside or parameter.grad is None, f'{name} is taught by the teacher'
        if inside and 'bias' not in name:
            assert name in learns | shared, f'{name} is not taught'
    assert all(bool(p.grad.any()) for p in model.neck.parameters() if p.grad is not None and p.dim() > 1)
    assert model.backbone.conv1.weight.grad.any()
    total(losses).backward()
    torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert all(p.grad is None and not p.requires_grad for p in guide.parameters())
    after = guide.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # running statistics too
    assert not any(module.training for module in guide.modules())


@pytest.mark.parametrize('kind', HEADS)
def test_a_student_with_its_teachers_weights_learns_nothing(kind, teacher):
    cfg, path = teacher(kind)
    model = build(cross_cfg(cfg, (cfg, path)), 1).eval()
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)
    losses = losses_of(model, make_batch(**BATCH))
    assert float(losses['loss_cls_cross']) == 0
    assert float(losses['loss_bbox_cross']) == pytest.approx(0, abs=1e-5)
    losses['loss_cls_cross'].backward(retain_graph=True)
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)
    if kind == 'gfl':  # equal distributions: the slope is 0, where that of an IoU has a kink
        losses['loss_bbox_cross'].backward()
        assert max(float(p.grad.abs().max()) for p in model.parameters() if p.grad is not None) < 1e-5


def test_gradients_in_float64(teacher):
    """Central differences of the terms in a tower's, the neck's and the mapper's weights."""
    model = lively(build(cross_cfg(dense('retinanet', channels=8), teacher('retinanet')), 1), seed=1)
    model = model.double().eval()  # most other heads round their boxes to float32
    data = model.data_preprocessor(make_batch(**BATCH), True)

    def value():
        return total(crossed(model.loss(data['inputs'].double(), data['data_samples'])))
    parameters = [model.bbox_head.cls_convs[0].conv.weight, model.bbox_head.reg_convs[1].gn.weight,
                  model.neck.lateral_convs[0].conv.weight, model.terms[0].adapters['bbox'].layers[0].weight]
    gradients = torch.autograd.grad(value(), parameters)
    for parameter, gradient in zip(parameters, gradients):
        place = gradient.abs().argmax()
        with torch.no_grad():
            flat, step = parameter.view(-1), 1e-5
            flat[place] += step
            above = float(value())
            flat[place] -= 2 * step
            below = float(value())
            flat[place] += step
        assert (above - below) / (2 * step) == pytest.approx(float(gradient.view(-1)[place]), rel=1e-4)


# -- limits
# --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'atss'])
def test_the_students_own_losses_stay_and_weights_zero_are_plain_bit_for_bit(kind, teacher):
    plain, taught = build(dense(kind), 1), build(cross_cfg(dense(kind), teacher(kind)), 1)
    off = build(cross_cfg(dense(kind), (teacher(kind)[0], 'gone.pth'), cls=dict(loss_weight=0),
                          bbox=dict(loss_weight=0), score_factor=None), 1)
    assert off.distill_terms == [] and 'NOTHING' in off.plan()[-1]
    states = []
    for model in (plain, taught, off):
        losses = losses_of(model, make_batch(**BATCH))
        own = {name: value for name, value in losses.items() if '_cross' not in name}
        total(own).backward()
        states.append((own, [p.grad for p in model.bbox_head.parameters()], torch.rand(1)))
    for own, gradients, drawn in states[1:]:
        assert own.keys() == states[0][0].keys() and torch.equal(drawn, states[0][2])
        for name, value in states[0][0].items():
            for one, other in zip(value, own[name]) if isinstance(value, list) else [(value, own[name])]:
                assert torch.equal(one, other)
        for one, other in zip(states[0][1], gradients):
            assert (one is None) == (other is None) and (one is None or torch.equal(one, other))


@pytest.mark.parametrize('kind', HEADS)
def test_batches_without_objects_are_finite_and_not_skipped(kind, teacher):
    model = lively(build(cross_cfg(dense(kind), teacher(kind)), 1), seed=1)
    losses = losses_of(model, make_batch(sizes=((64, 64),) * 2, objects=(0, 0)))
    total(losses).backward()
    assert total(losses).isfinite() and float(losses['loss_cls_cross']) > 0 and float(losses['loss_bbox_cross']) > 0
    if kind in FACTORS:
        assert float(losses[f'loss_{FACTORS[kind]}_cross']) == 0  # positives alone
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize('kind', ['gfl', 'retinanet'])
def test_a_batch_twice_over_is_worth_as_much_as_once(kind, teacher):
    """Equal statistics: sums and the number of positives grow alike. With other images they do not, as is said."""
    model = lively(build(cross_cfg(dense(kind), teacher(kind)), 1), seed=1).eval()
    batch = make_batch(sizes=((64, 96),) * 2, objects=(3, 2), seed=3)
    once, twice = (crossed(losses_of(model, {name: [copy.deepcopy(one) for _ in range(repeat) for one in values]
                                             for name, values in batch.items()})) for repeat in (1, 2))
    for name, value in once.items():
        assert float(twice[name]) == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize('kind', HEADS)
def test_mixed_precision(kind, teacher):
    model = lively(build(cross_cfg(dense(kind), teacher(kind), fast={}), 1), seed=1)
    whole = crossed(losses_of(model.eval(), make_batch(**BATCH)))
    weights = {name: p.dtype for name, p in model.teacher.model.named_parameters()}
    with torch.autocast('cpu', torch.bfloat16):
        losses = losses_of(model, make_batch(**BATCH))
    total(losses).backward()
    assert any(p.dtype == torch.bfloat16 for p in model.teacher.model.parameters()), 'the teacher ran in full precision'
    for name, value in whole.items():
        assert losses[name].dtype == torch.float32
        assert float(losses[name]) == pytest.approx(float(value), rel=0.25), name
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    losses_of(model, make_batch(**BATCH))
    assert {name: p.dtype for name, p in model.teacher.model.named_parameters()} == weights


@pytest.mark.parametrize('kind', ['rtmdet', 'yolox', 'gfl'])
def test_a_folded_channels_last_teacher_teaches_the_same(kind, teacher):
    """Batch norms are folded, but not where the students' features enter: what stands before an activation stays."""
    slow, fast = (lively(build(cross_cfg(dense(kind), teacher(kind), fast=how), 1), seed=1).eval()
                  for how in (SLOW, dict()))
    ours, theirs = (crossed(losses_of(model, make_batch(**BATCH))) for model in (slow, fast))
    assert fast.teacher.folded > 10
    for name, value in ours.items():
        assert float(theirs[name]) == pytest.approx(float(value), rel=1e-3), name


# -- pairs of different shape
# --------------------------------------------------------------------------------------------
def test_a_mapper_carries_other_channels_over_and_is_no_part_of_the_student(teacher):
    model = lively(build(cross_cfg(dense('paa', channels=8), teacher('paa')), 1), seed=1)
    plain = build(dense('paa', channels=8), 1)
    assert {name: tuple(p.shape) for name, p in model.adapter_parameters().items()} == {
        f'0.adapters.{branch}.layers.0.weight': (16, 8, 1, 1) for branch in ('cls', 'bbox')}
    assert model.plan()[-3:-1] == [f'    {branch} tower: 8 channels to 16 through ConvAdapter'
                                   for branch in ('cls', 'bbox')]
    total(crossed(losses_of(model, make_batch(**BATCH)))).backward()
    assert all(bool(p.grad.any()) for p in model.adapter_parameters().values())
    plain.load_state_dict(model.state_dict(), strict=True)
    # what a checkpoint keeps beside the student comes back
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    fresh = build(cross_cfg(dense('paa', channels=8), teacher('paa')), 1)
    fresh.load_distill_state(copy.deepcopy(model.distill_state()))
    for name, value in fresh.adapter_parameters().items():
        assert torch.equal(value, model.adapter_parameters()[name])
    # also where channels agree, if asked for
    asked = build(cross_cfg(dense('paa'), teacher('paa'), adapter=dict(kernel_size=3)), 1)
    assert asked.terms[0].adapters['cls'].layers[0].weight.shape == (16, 16, 3, 3)
    assert not build(cross_cfg(dense('paa'), teacher('paa')), 1).adapter_parameters()


def test_a_tower_that_no_term_looks_at_has_no_mapper(teacher):
    for off, on in (('bbox', ['cls']), ('cls', ['bbox'])):
        model = build(cross_cfg(dense('gfl', channels=8), teacher('gfl'), **{off: None}), 1)
        assert list(model.terms[0].adapters) == on
        losses = crossed(losses_of(model, make_batch(**BATCH)))
        assert list(losses) == [f'loss_{on[0]}_cross']
        total(losses).backward()  # under DDP every parameter has to take part
        assert all(p.grad is not None for p in model.adapter_parameters().values())


def test_towers_of_other_depths_meet_where_as_much_is_left(teacher):
    model = lively(build(cross_cfg(dense('gfl', stacked_convs=1), teacher('gfl')), 1), seed=1)
    assert (model.terms[0].k, model.terms[0].teacher_k) == (1, 2)
    assert model.plan()[2] == ('CrossKD: cls_convs and reg_convs after convolution 1 of 1, through teacher\'s GFLHead '
                               'behind convolution 2 of 3')
    assert total(crossed(losses_of(model, make_batch(**BATCH)))) > 0
    given = build(cross_cfg(dense('gfl'), teacher('gfl'), k=3), 1).terms[0]
    assert (given.k, given.teacher_k) == (3, 3)
    given = build(cross_cfg(dense('gfl'), teacher('gfl'), k=3, teacher_k=1), 1).terms[0]
    assert (given.k, given.teacher_k) == (3, 1)


def test_a_teacher_of_another_family_predicts_in_its_own_way(teacher):
    model = lively(build(cross_cfg(dense('atss'), teacher('gfl')), 1), seed=1)
    assert [type(loss).__name__ for loss in (model.terms[0].cls, model.terms[0].bbox)] == [
        'ModulatedBCELoss', 'DistributionKLLoss']
    assert list(crossed(losses_of(model, make_batch(**BATCH)))) == ['loss_cls_cross', 'loss_bbox_cross']
    model = lively(build(cross_cfg(dense('gfl'), teacher('fcos')), 1), seed=1)
    assert model.terms[0].box_normaliser == 'weights'  # a GFL student has no targets of centerness
    assert total(crossed(losses_of(model, make_batch(**BATCH)))).isfinite()


def test_two_teachers_are_two_terms(teacher):
    (cfg, one), (_, other) = teacher('gfl'), teacher('gfl', 'b')
    sources = {name: dict(config=copy.deepcopy(cfg), checkpoint=path) for name, path in (('a', one), ('b', other))}
    model = build(cross_cfg(dense('gfl'), (cfg, one), sources=sources, source='a',
                            more=[dict(type='CrossHead', source='b', name='b')]), 1)
    assert list(crossed(losses_of(model, make_batch(**BATCH)))) == [
        'loss_cls_cross', 'loss_bbox_cross', 'loss_cls_cross_b', 'loss_bbox_cross_b']
    with pytest.raises(ConfigError, match='CrossHead learns from one teacher'):
        build(cross_cfg(dense('gfl'), (cfg, one), sources=sources, source=['a', 'b']), 1)


def test_beside_pkd(teacher):
    model = build(cross_cfg(dense('gfl'), teacher('gfl'), more=[
        dict(type='Hint', layer='neck', levels=None, adapter=None, loss=dict(type='PKDLoss', loss_weight=6.))]), 1)
    losses = losses_of(model, make_batch(**BATCH))
    assert model.distill_terms == ['loss_cls_cross', 'loss_bbox_cross', 'loss_hint_neck']
    alone = losses_of(build(cross_cfg(dense('gfl'), teacher('gfl')), 1), make_batch(**BATCH))
    assert all(torch.equal(value, losses[name]) for name, value in crossed(alone).items())


def test_copies_do_not_take_the_teacher_along(teacher):
    model = build(cross_cfg(dense('gfl', channels=8), teacher('gfl')), 1)
    losses_of(model, make_batch(**BATCH))
    theirs = {id(module) for module in model.teacher.model.modules()}
    twin = copy.deepcopy(model)  # as an EMA hook makes it
    assert twin.teacher is model.teacher and not theirs & {id(module) for module in model.modules()}
    assert not [value for value in vars(twin.terms[0]).values() if isinstance(value, torch.nn.Module)]
    ours, copied = (crossed(losses_of(one.eval(), make_batch(**BATCH))) for one in (model, twin))
    assert all(torch.equal(value, copied[name]) for name, value in ours.items())


# -- the plan and refusals
# -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind,lines', [
    ('gfl', ['    classes, divided by positives: ModulatedBCELoss of weight 1',
             '    boxes, divided by weights: DistributionKLLoss of weight 4',
             '    not given, as published for GFL: k, cls, bbox']),
    ('fcos', ['    classes, divided by positives: ModulatedBCELoss of weight 0.4',
              '    boxes, divided by centerness: IoULoss of weight 0.75',
              '    not given, as published for FCOS: k, cls, bbox']),
    ('paa', ['    classes, divided by positives: ModulatedBCELoss of weight 1',
             '    boxes, divided by weights: GIoULoss of weight 1',
             '    iou, divided by positives: SoftBCELoss of weight 1',
             '    not given, as published for ATSS (none are published for PAAHead): k, cls, bbox, score_factor'])])
def test_plan(kind, lines, teacher):
    assert build(cross_cfg(dense(kind, stacked_convs=4), teacher(kind, stacked_convs=4)), 1).plan()[3:] == lines
    k = 2 if kind == 'fcos' else 3
    plan = build(cross_cfg(dense(kind, stacked_convs=4), teacher(kind, stacked_convs=4), stop_epoch=200), 1).plan()
    assert plan[2].endswith(f"after convolution {k} of 4, through teacher's {kind.upper()}Head behind convolution {k} "
                            "of 4")
    assert plan[3] == '    from epoch 0 to epoch 200'


def test_constants_are_overridden_one_by_one(teacher):
    term = build(cross_cfg(dense('gfl'), teacher('gfl'), cls=dict(loss_weight=2.), bbox=dict(
        type='GIoULoss', loss_weight=3.)), 1).terms[0]
    assert (term.cls.loss_weight, term.cls.beta) == (2, 1)
    assert (type(term.bbox).__name__, term.bbox.loss_weight) == ('GIoULoss', 3)
    term = build(cross_cfg(dense('fcos'), teacher('fcos'), box_normaliser='weights', score_factor=dict(
        loss_weight=0.5)), 1).terms[0]
    assert (term.box_normaliser, type(term.score_factor).__name__) == ('weights', 'SoftBCELoss')


def test_what_cannot_work_is_refused_with_the_key(teacher, tmp_path):
    def refused(match, student, taught, **term):
        with pytest.raises(ConfigError, match=match):
            build(cross_cfg(student, taught, **term), 1)
    gfl = teacher('gfl')
    refused(r'\[9, 9, 9, 9, 9\] priors a place', dense('retinanet'), gfl)
    refused(r'student scores 3 classes with a sigmoid, the teacher 2', dense('gfl', num_classes=3), gfl)
    refused(r'at strides \[8, 16, 32\]', dense('rtmdet'), gfl)
    refused(r'bbox_head: VFNetHead', dense('vfnet'), gfl)
    refused(r'terms\[0\]\.k: found 4; the student.*3 convolutions.*1 to 3', dense('gfl'), gfl, k=4)
    refused(r'terms\[0\]\.teacher_k: found 4; the teacher', dense('gfl', stacked_convs=4), gfl, k=4)
    refused(r'terms\[0\]\.k: found 0', dense('gfl'), gfl, k=0)
    refused(r'terms\[0\]\.adapter: None.*8 channels, the teacher\'s 16', dense('gfl', channels=8), gfl, adapter=None)
    refused(r'terms\[0\]\.adapter: .*IdentityAdapter cannot bridge.*8 channels', dense('gfl', channels=8), gfl,
            adapter=dict(type='IdentityAdapter'))
    refused(r'terms\[0\]\.adapter: .*makes \(2, 8, 2, 2\) of .*\(2, 16, 4, 4\) is needed', dense('gfl', channels=8),
            gfl, adapter=dict(type=torch.nn.MaxPool2d, kernel_size=2))
    refused(r'bbox\.type: DistributionKLLoss compares distributions; a loss that compares decoded boxes is',
            dense('atss'), teacher('atss'), bbox=dict(type='DistributionKLLoss'))
    refused(r'cls\.type: GIoULoss compares decoded boxes', dense('gfl'), gfl, cls=dict(type='GIoULoss'))
    refused(r'score_factor: the student\'s GFLHead has None', dense('gfl'), gfl, score_factor=dict())
    refused(r'box_normaliser: found .centerness.*is no FCOS', dense('gfl'), gfl, box_normaliser='centerness')
    refused(r'box_normaliser: found .sum', dense('gfl'), gfl, box_normaliser='sum')
    refused(r'terms\[0\]\.cls: found 1.0', dense('gfl'), gfl, cls=1.0)
    refused(r'nothing is compared', dense('gfl'), gfl, cls=None, bbox=None)
    refused(r'terms\[0\]: unknown keys .*loss_cls', dense('gfl'), gfl, loss_cls=dict())
    soft = dense('retinanet')
    soft.bbox_head.loss_cls = ConfigDict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    refused(r'RetinaHead scores with a softmax.*terms\[0\] compares classes as binary', soft, (
        soft, save_checkpoint(build(soft, 7), tmp_path / 's.pth')))
    cfg = cross_cfg(dense('gfl'), gfl)
    cfg.ground_truth = False
    with pytest.raises(ConfigError, match='ground_truth: False'):
        build(cfg, 1)


def test_recorded_answers_cannot_teach_and_it_is_said_before_training(teacher, tmp_path):
    """The teacher's head runs on the student's features; a record has no weights to do so."""
    with pytest.raises(ConfigError, match=r'teacher.record: terms\[0\], CrossHead, runs the teacher itself'):
        build(cross_cfg(dense('gfl'), teacher('gfl'), dict(SLOW, record=str(tmp_path))), 1)


def test_a_student_with_nothing_to_teach_is_refused(teacher):
    model = build(cross_cfg(dense('gfl'), teacher('gfl')), 1)
    for part in (model.backbone, model.neck, *model.bbox_head.cls_convs[:2]):
        part.requires_grad_(False)
    with pytest.raises(ConfigError, match='nothing that trains lies before convolution 2 of the student\'s cls tower'):
        losses_of(model, make_batch(**BATCH))
