"""LD against a reference with loops, MMDetection's own head, finite differences, and a batch over two ranks."""
import copy
import math
import os

import pytest
import torch
from conftest import build, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from seen_by_loops import between_scores, seen_by_loops
from valuable_region_loops import by_loops

from kd_det.errors import ConfigError
from kd_det.heads.dense_outputs import DenseOutputs, decoder_of
from kd_det.heads.dense_targets import DenseTargets
from kd_det.sources.layers import Captured
from kd_det.terms.constants import localisation_constants
from kd_det.terms.dense import hear_targets, student_outputs, student_targets
from kd_det.terms.ld import LD
from kd_det.terms.step import Step

BATCH = dict(sizes=((96, 128), (96, 64), (64, 64)), objects=(3, 2, 0), seed=3)
MMDET_LD = dict(type='KnowledgeDistillationKLDivLoss', loss_weight=0.25, T=10)
PLAIN = dict(fuse_conv_bn=False, channels_last=False)


def stirred(model, seed=0):
    """Fresh heads all predict the same; these do not."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    cfg = dense_cfg('gfl', width=16)
    return cfg, save_checkpoint(stirred(build(cfg, 7), 1), tmp_path_factory.mktemp('t') / 'gfl.pth')


def ld_cfg(student, taught, *more, **options):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='Distiller', terms=[dict(type='LD', **options), *more],
               teacher=dict(config=copy.deepcopy(taught[0]), checkpoint=taught[1], **PLAIN))
    return cfg


def heard(model, batch):
    """What the term gets of one step: student, teacher, targets, objects."""
    data = model.data_preprocessor(batch, True)
    step = Step(model, data['inputs'], data['data_samples'], Captured(model, {}))
    with step.listening():
        hear_targets(step)
        type(model).student_class.loss(model, data['inputs'], data['data_samples'])
    teacher = model.teacher.open(data['inputs'], data['data_samples']).dense_outputs()
    return (student_outputs(step), teacher, student_targets(step),
            [get_box_tensor(sample.gt_instances.bboxes) for sample in data['data_samples']])


def part(scene, images):
    """The scene of some of its images."""
    student, teacher, targets, objects = scene
    sides = [DenseOutputs(one.head, one.decode, one.logits[images], one.regression[images], None, one.priors,
                          one.strides, one.level_sizes) for one in (student, teacher)]
    return (*sides, DenseTargets(targets.positive[images], targets.label_weights[images], targets.level_sizes),
            objects[images])


@pytest.fixture(scope='module')
def scene(taught):
    """(model, what its term gets) of a batch with a narrow image and one without objects."""
    model = stirred(build(ld_cfg(dense_cfg('gfl'), taught), 1), 2)
    return model, heard(model, make_batch(**BATCH))


def kl(ours, theirs, temperature):
    """T^2 / n * sum over n bins of p_t log(p_t / p_s), on plain numbers."""
    p, q = ([math.exp(v / temperature - max(row) / temperature) for v in row] for row in (theirs, ours))
    p, q = ([v / sum(row) for v in row] for row in (p, q))
    return temperature**2 * sum(a * math.log(a / b) for a, b in zip(p, q)) / len(p)


def by_hand(scene, main=0.25, vlr=0.0625, cls=10.0 * 2 / 80):
    """The three sums, place by place."""
    student, teacher, targets, objects = scene
    images = len(student.logits)
    level_of = [level for level, size in enumerate(targets.level_sizes) for _ in range(size)]
    found = dict(loss_ld=0.0, loss_ld_vlr=0.0, loss_ld_cls=0.0)
    positives = [[] for _ in targets.level_sizes]
    for image in range(images):
        region = by_loops(student.priors, targets.level_sizes, targets.label_weights[image] > 0, objects[image])
        for place, level in enumerate(level_of):
            ours, theirs = (side.regression[image, place].view(4, -1).tolist() for side in (student, teacher))
            chosen = bool(targets.positive[image, place])
            if not chosen and not region[place]:
                continue
            distance = sum(kl(a, b, 10) for a, b in zip(ours, theirs)) / 4
            scores = student.logits[image, place].sigmoid().tolist()
            found['loss_ld'] += main * chosen * max(scores) * distance / (images / 2)
            found['loss_ld_vlr'] += vlr * region[place] * distance / (images / 2)
            if chosen:
                positives[level].append(kl(student.logits[image, place].tolist(), teacher.logits[image, place].tolist(),
                                           2))
    found['loss_ld_cls'] = cls * sum(sum(level) / len(level) for level in positives if level)
    return found, [len(level) for level in positives]


def test_equals_a_reference_with_loops(scene):
    model, inputs = scene
    found = model.terms[0].compare(*inputs)
    expected, positives = by_hand(inputs)
    assert 0 in positives and sum(positives) > 5  # a level without positives is no trouble
    for name, value in expected.items():
        assert value > 1e-4 and float(found[name]) == pytest.approx(value, rel=2e-4), name
    assert float(found['ld_positives_of_two_images']) == pytest.approx(2 * sum(positives) / 3)


@pytest.mark.parametrize('images', [2, 3])
def test_main_region_is_that_of_mmdetections_head_times_the_stated_normaliser(taught, images):
    """MMDetection's LDHead adds up: at 2 images per GPU the values are equal, at 3 its value is 3/2 of ours."""
    batch = dict(sizes=((96, 128),) * images, objects=(3, 2, 4)[:images], seed=5)
    model = stirred(build(ld_cfg(dense_cfg('gfl'), taught), 1), 2)
    theirs = build(dense_cfg('gfl', type='LDHead', loss_ld=MMDET_LD), 1)
    theirs.load_state_dict({k: v for k, v in model.state_dict().items() if 'terms' not in k})
    losses = losses_of(model, make_batch(**batch))
    data = theirs.data_preprocessor(make_batch(**batch), True)
    teacher = model.teacher.open(data['inputs'], data['data_samples']).dense()
    reference = theirs.bbox_head.loss(theirs.extract_feat(data['inputs']), teacher, data['data_samples'])
    assert float(sum(losses['loss_cls'])) == pytest.approx(float(sum(reference['loss_cls'])), rel=1e-5)
    assert float(losses['loss_ld']) * images / 2 == pytest.approx(float(sum(reference['loss_ld'])), rel=1e-5) != 0


def test_a_batch_is_the_mean_of_its_halves_and_class_terms_of_their_positives(scene):
    model, term = scene[0], scene[0].terms[0]
    whole = heard(model, make_batch(sizes=((96, 128),) * 4, objects=(3, 1, 2, 0), seed=4))
    halves = [part(whole, slice(0, 2)), part(whole, slice(2, 4))]
    found, (first, second) = term.compare(*whole), (term.compare(*half) for half in halves)
    for name in ('loss_ld', 'loss_ld_vlr'):
        assert float(found[name]) == pytest.approx(float(first[name] + second[name]) / 2, rel=1e-5) != 0
    counts = [[int(level.sum()) for level in half[2].per_level(half[2].positive)] for half in halves]
    assert counts[0] != counts[1]
    alone = [classes_of_levels(term, half) for half in halves]
    expected = sum((a * n + b * m) / (n + m) for a, b, n, m in zip(*alone, *counts) if n + m)
    assert float(found['loss_ld_cls']) == pytest.approx(float(expected), rel=1e-5) != 0


def classes_of_levels(term, inputs):
    """The class term of each level alone."""
    student, teacher, targets, objects = inputs
    found, start = [], 0
    for size in targets.level_sizes:
        only = torch.zeros_like(targets.positive)
        only[:, start:start + size] = targets.positive[:, start:start + size]
        found.append(term.compare(student, teacher, DenseTargets(only, targets.label_weights, targets.level_sizes),
                                  objects)['loss_ld_cls'])
        start += size
    return found


@pytest.mark.parametrize('options', [{}, dict(normaliser='positives', positives=40.0)], ids=['images', 'positives'])
def test_two_ranks_with_unequal_positives_equal_one_process(scene, tmp_path, options):
    model, inputs = scene
    with torch.no_grad():
        ours = rebuilt(model.terms[0], options)
        whole = ours.compare(*inputs)
        shares = [part(inputs, slice(0, 2)), part(inputs, slice(2, 3))]  # two images with objects, one without
        assert shares[0][2].positive.any() and not shares[1][2].positive.any()
        children = []
        for rank in (0, 1):
            child = os.fork()
            if not child:
                os._exit(one_rank(rank, ours, shares[rank], tmp_path))
            children.append(child)
        assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    ranks = [torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)]
    for name in ('loss_ld', 'loss_ld_vlr', 'loss_ld_cls', 'ld_positives_of_two_images'):
        assert float(ranks[0][name] + ranks[1][name]) / 2 == pytest.approx(float(whole[name]), rel=1e-5) != 0, name


def rebuilt(term, options):
    other = LD(**options)
    other.main, other.vlr, other.cls = term.main, term.vlr, term.cls
    return other


def one_rank(rank, term, inputs, folder):
    try:
        torch.distributed.init_process_group('gloo', init_method=f'file://{folder}/meet', rank=rank, world_size=2)
        torch.save(term.compare(*inputs), folder / f'{rank}.pt')
        torch.distributed.barrier()
        return 0
    except BaseException:
        import traceback
        traceback.print_exc()
        return 1


def test_gradients_by_finite_differences(scene):
    model, inputs = scene
    term = model.terms[0]
    student, teacher, targets, objects = part(inputs, slice(0, 2))
    region = term._region(student, targets.label_weights, objects) > 0
    assert (region & ~targets.positive).any()
    where = torch.cat([targets.positive.nonzero()[:2], (region & ~targets.positive).nonzero()[:2]]).T
    in_double = [dict(logits=one.logits.detach().double(), regression=one.regression.detach().double(),
                      priors=one.priors.double(), strides=one.strides.double()) for one in (student, teacher)]

    def losses(**moved):
        ours, theirs = copy.copy(in_double[0]), in_double[1]
        for name, values in moved.items():
            ours[name] = ours[name].index_put(tuple(where), values)
        return term.compare(*(DenseOutputs(model.bbox_head, student.decode, factor=None,
                                           level_sizes=student.level_sizes, **side) for side in (ours, theirs)),
                            targets, objects)

    edges, logits = (in_double[0][name][tuple(where)].requires_grad_() for name in ('regression', 'logits'))
    for name in ('loss_ld', 'loss_ld_vlr'):
        assert torch.autograd.gradcheck(lambda x, name=name: losses(regression=x)[name], edges)
    assert torch.autograd.gradcheck(lambda x: losses(logits=x)['loss_ld_cls'], logits)
    assert not losses(logits=logits)['loss_ld'].requires_grad  # s_i is a constant


def test_a_teacher_like_the_student_gives_no_gradient(tmp_path):
    cfg = dense_cfg('gfl')
    twin = stirred(build(cfg, 7), 1).eval()
    path = save_checkpoint(twin, tmp_path / 'twin.pth')
    model = build(ld_cfg(cfg, (cfg, path)), 1)
    model.load_state_dict(twin.state_dict(), strict=True)
    model.eval()  # batch norm as the teacher's
    losses = losses_of(model, make_batch(**BATCH))
    sum(losses[name] for name in model.distill_terms).backward()
    grads = [p.grad.abs().max() for p in model.parameters() if p.grad is not None]
    assert len(grads) > 20 and max(grads) < 1e-5
    assert all(abs(float(losses[name])) < 1e-6 for name in model.distill_terms)


def test_one_step_trains_the_boxes_and_nothing_of_the_teacher(taught):
    model = build(ld_cfg(dense_cfg('gfl'), taught), 1)
    before = {k: v.clone() for k, v in model.teacher.model.state_dict().items()}
    losses = losses_of(model, make_batch(**BATCH))
    assert set(model.distill_terms) == {'loss_ld', 'loss_ld_vlr', 'loss_ld_cls'} <= set(losses)
    parsed, log = model.parse_losses(losses)
    assert float(parsed) == pytest.approx(float(total(losses)), rel=1e-6) and 'ld_positives_of_two_images' in log
    (losses['loss_ld'] + losses['loss_ld_vlr']).backward()
    assert model.bbox_head.gfl_reg.weight.grad.abs().sum() > 0 and model.backbone.conv1.weight.grad.abs().sum() > 0
    assert model.bbox_head.gfl_cls.weight.grad is None  # the weights s_i are constants
    assert all(torch.equal(before[k], v) for k, v in model.teacher.model.state_dict().items())


def test_a_batch_without_objects_is_finite_and_zero(taught):
    model = build(ld_cfg(dense_cfg('gfl'), taught), 1)
    losses = losses_of(model, make_batch(sizes=((64, 64),) * 2, objects=(0, 0)))
    assert all(float(losses[name]) == 0 for name in model.distill_terms)
    total(losses).backward()
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


def test_weight_0_is_plain_bit_for_bit(taught):
    plain = build(dense_cfg('gfl'), 1)
    off = dict(loss_weight=0)
    model = build(ld_cfg(dense_cfg('gfl'), taught, main=off, vlr=off, cls=off), 1)
    assert not model.terms and not model.distill_terms
    ours, theirs = losses_of(model, make_batch(**BATCH)), losses_of(plain, make_batch(**BATCH))
    assert set(ours) == set(theirs)
    total(ours).backward(), total(theirs).backward()
    for (name, p), q in zip(plain.named_parameters(), model.parameters()):
        assert torch.equal(p, q) and torch.equal(p.grad, q.grad), name


def test_parts_alone_and_the_heads_own_losses(taught):
    plain = losses_of(build(dense_cfg('gfl'), 1), make_batch(**BATCH))
    model = build(ld_cfg(dense_cfg('gfl'), taught, vlr=None, cls=None, main=dict(loss_weight=0.5)), 1)
    losses = losses_of(model, make_batch(**BATCH))
    assert model.distill_terms == ['loss_ld'] and not model.terms[0].compares_classes
    for name, value in plain.items():
        assert all(torch.equal(a, b) for a, b in zip(losses[name], value)), name
    half = losses_of(build(ld_cfg(dense_cfg('gfl'), taught), 1), make_batch(**BATCH))
    assert float(losses['loss_ld']) == pytest.approx(2 * float(half['loss_ld']), rel=1e-6)


@pytest.mark.parametrize('classes', [1, 3, 80])
def test_a_class_counts_what_it_counts_on_coco(classes):
    """The released class loss is a mean over 80 classes with weight 10: a sum over classes with weight 10 / 80."""
    weight = localisation_constants(build(dense_cfg('gfl', num_classes=classes), 1)).loss['cls']['loss_weight']
    assert weight / classes == pytest.approx(10 / 80)


def test_positives_as_the_normaliser(taught):
    """Where two images have so many positives, both normalisers are one."""
    batch = make_batch(**BATCH)
    images = losses_of(build(ld_cfg(dense_cfg('gfl'), taught), 1), batch)
    two = float(images['ld_positives_of_two_images'])
    other = losses_of(build(ld_cfg(dense_cfg('gfl'), taught, normaliser='positives', positives=two), 1),
                      make_batch(**BATCH))
    for name in ('loss_ld', 'loss_ld_vlr', 'loss_ld_cls'):
        assert float(other[name]) == pytest.approx(float(images[name]), rel=1e-5)


def test_the_plan_states_constants_and_normaliser(taught):
    plan = '\n'.join(build(ld_cfg(dense_cfg('gfl'), taught), 1).plan())
    for text in ('temperature=10.0, loss_weight=0.25', 'temperature=10.0, loss_weight=0.0625', 'T=2, loss_weight=0.25',
                 'what is not given is GFL\'s', 'images per rank / 2', 'at 2 images per GPU', '[0.25 t, t)'):
        assert text in plan, text
    plan = '\n'.join(build(ld_cfg(dense_cfg('gfl'), taught, normaliser='positives', positives=57), 1).plan())
    assert 'positives per rank / 57' in plan


def test_mmdetections_ld_head_can_teach(tmp_path):
    cfg = dense_cfg('gfl', width=16, type='LDHead', loss_ld=MMDET_LD)
    path = save_checkpoint(stirred(build(cfg, 7), 1), tmp_path / 't.pth')
    losses = losses_of(build(ld_cfg(dense_cfg('gfl'), (cfg, path)), 1), make_batch(**BATCH))
    assert float(losses['loss_ld']) > 0


def test_on_images_without_labels_the_valuable_region_lies_around_what_the_teacher_sees(taught):
    """Equal to the labelled term where the ground truth is what the teacher sees, at any number of images."""
    batch = make_batch(sizes=((96, 128),) * 3, objects=(2, 1, 0), seed=6)
    labelled, truth = stirred(build(ld_cfg(dense_cfg('gfl'), taught), 1), 2), copy.deepcopy(batch)
    data = labelled.data_preprocessor(copy.deepcopy(batch), True)
    teacher = labelled.teacher.open(data['inputs'], data['data_samples']).dense_outputs()
    limit = between_scores(teacher, 40)
    for image, sample in enumerate(truth['data_samples']):
        boxes = seen_by_loops(teacher, image, limit)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    assert sum(len(sample.gt_instances) for sample in truth['data_samples']) > 3
    expected = float(losses_of(labelled, truth)['loss_ld_vlr'].detach())
    for normaliser in ({}, dict(normaliser='positives', positives=50.0)):
        cfg = ld_cfg(dense_cfg('gfl'), taught, seen_from=limit, **normaliser)
        model = stirred(build(dict(cfg, unlabelled=dict(weight=1.0)), 1), 2)
        model.unlabelled.take(copy.deepcopy(batch))
        losses = losses_of(model, make_batch(sizes=((96, 128),) * 2, objects=(1, 0)))
        assert {name for name in losses if 'unlabelled' in name} == {'unlabelled.loss_ld_vlr'}
        assert float(losses['unlabelled.loss_ld_vlr'].detach()) == pytest.approx(expected, rel=1e-4) != 0
    alone = dict(ld_cfg(dense_cfg('gfl'), taught, vlr=None, images='all'), unlabelled=dict())
    with pytest.raises(ConfigError, match=r'terms\[0\].images: .*LD needs ground truth: its parts are of the pos'):
        build(alone, 1)


@pytest.mark.parametrize('student, options, message', [
    (dict(kind='retinanet'), {}, 'RetinaHead predicts one number for each edge'),
    (dict(kind='fcos'), {}, 'FCOSHead predicts one number for each edge'),
    (dict(kind='gfl', reg_max=8), {}, r'the student\'s edges have 9 bins, the teacher\'s 17'),
    (dict(kind='gfl', num_classes=3), {}, r'scores 3 classes, the teacher 2; terms\[0\].cls=None'),
    (dict(kind='gfl'), dict(normaliser='positives'), r'terms\[0\].positives: found None'),
    (dict(kind='gfl'), dict(positives=5), r'it is for normaliser=\'positives\''),
    (dict(kind='gfl'), dict(normaliser='sum'), r'terms\[0\].normaliser'),
    (dict(kind='gfl'), dict(alpha=0), r'terms\[0\].alpha: found 0'),
    (dict(kind='gfl'), dict(main=dict(type='PKDLoss')), r'terms\[0\].main.type'),
    (dict(kind='gfl'), dict(vlr=3), r'terms\[0\].vlr: found 3'),
], ids=str)
def test_what_cannot_be_is_refused(taught, student, options, message):
    with pytest.raises(ConfigError, match=message):
        build(ld_cfg(dense_cfg(**student), taught, **options), 1)


def test_a_head_with_points_has_no_valuable_region(taught):
    """A head of the user's own with distributions around points: the region needs anchors."""
    cfg = dense_cfg('gfl')
    cfg.bbox_head.anchor_generator = dict(type='MlvlPointGenerator', strides=[8, 16, 32, 64, 128], offset=0)
    with pytest.raises(ConfigError, match=r'terms\[0\].vlr: .* are points'):
        build(ld_cfg(cfg, taught), 1)
    assert decoder_of(build(cfg, 1).bbox_head, 'x')


def test_mixed_precision_is_finite_and_close(taught):
    model = stirred(build(ld_cfg(dense_cfg('gfl'), taught), 1), 2)
    whole = losses_of(model, make_batch(**BATCH))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        half = losses_of(model, make_batch(**BATCH))
    for name in model.distill_terms:
        assert float(half[name]) == pytest.approx(float(whole[name]), rel=0.2), name
