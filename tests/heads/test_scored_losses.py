"""Losses of ATSS-type heads weighed by the scores of objects, against sums over priors that are made with loops."""
import contextlib
import copy
import inspect

import pytest
import torch
from conftest import build, losses_of, make_batch
from dense_detectors import dense_cfg, stirred

from kd_det.heads.score_weights import weighed_by_score
from kd_det.heads.scored_losses import KINDS, kind_of
from kd_det.tap import replaced, tap_method

pytestmark = pytest.mark.usefixtures('late_epoch')  # TOOD's own assignment
HEADS = ('atss', 'gfl', 'paa', 'fcos', 'rtmdet', 'tood', 'yolox')
BATCH = dict(sizes=((96, 128), (96, 96), (64, 96)), objects=(3, 0, 2), seed=1)
SCORES = {0: [0.5, 0.25, 0.9], 2: [0.8, 0.3]}


def model_of(kind):
    torch.manual_seed(0)
    model = stirred(build(dense_cfg(kind, **(dict(type='BatchedPAAHead') if kind == 'paa' else {})))).eval()
    if kind == 'yolox':
        model.bbox_head.use_l1 = True
    return model


def scored(scores, **batch):
    batch = make_batch(**{**BATCH, **batch})
    for i, sample in enumerate(batch['data_samples']):
        count = len(sample.gt_instances)
        if scores is not None:
            sample.gt_instances.scores = torch.tensor(scores[i] if isinstance(scores, dict) and count
                                                      else [1.0] * count)
    return batch


def sums(losses):
    return {name: sum(value) if isinstance(value, list) else value for name, value in losses.items() if 'loss' in name}


@contextlib.contextmanager
def rows_heard(model):
    """Calls of the head's losses that count: (name, losses of rows, divisor)."""
    head, heard = model.bbox_head, []

    def listening(name, module):
        forward, signature = module.forward, inspect.signature(module.forward)

        def listen(*args, **kwargs):
            asked = signature.bind(*args, **kwargs).arguments
            if asked.get('reduction_override') is None:
                given = {key: value for key, value in asked.items() if key != 'avg_factor'}
                heard.append((name, forward(**given, reduction_override='none').detach(), asked.get('avg_factor')))
            return forward(*args, **kwargs)
        return replaced(module, forward=listen)
    with contextlib.ExitStack() as stack:
        for name in ('loss_cls', 'loss_bbox', 'loss_centerness', 'loss_dfl', 'loss_obj', 'loss_l1'):
            if hasattr(head, name):
                stack.enter_context(listening(name, getattr(head, name)))
        yield heard


def owners_of(model, batch):
    """The object of each prior of each image, counted from 1; 0: none."""
    head, found = model.bbox_head, []

    def note(_, call):
        found.append(call['assign_result'].gt_inds.clone())
    with tap_method(head.sampler, 'sample', note):
        losses_of(model, copy.deepcopy(batch))
    return found


@pytest.mark.parametrize('kind', HEADS)
def test_without_scores_it_is_plain_and_scores_of_1_change_nothing(kind):
    model = model_of(kind)
    plain = sums(losses_of(model, scored(None)))
    with weighed_by_score(model):
        bare, ones = (sums(losses_of(model, scored(scores))) for scores in (None, 1.0))
    for name in plain:
        assert torch.equal(plain[name], bare[name]), name
        assert float(ones[name]) == pytest.approx(float(plain[name]), rel=1e-5), name
    with weighed_by_score(model):
        losses_of(model, scored(SCORES))
    assert all(torch.equal(plain[name], value) for name, value in sums(losses_of(model, scored(None))).items())


@pytest.mark.parametrize('kind', HEADS)
def test_each_row_counts_the_score_of_its_object(kind):
    """The weights are those of the objects, one by one: what an object adds to a loss is linear in its factor."""
    model = model_of(kind)

    def found(scores, power=1.0):
        with weighed_by_score(model, power):
            return {name: float(value) for name, value in sums(losses_of(model, scored(scores))).items()}
    plain = found({0: [1., 1, 1], 2: [1., 1]})
    # what one object adds: all its scores but one's at 1
    adds = {}
    for image, count in ((0, 3), (2, 2)):
        for i in range(count):
            scores = {0: [1.] * 3, 2: [1.] * 2}
            scores[image][i] = 0.5
            adds[image, i] = {name: (plain[name] - value) / 0.5 for name, value in found(scores).items()}
    for power in (1.0, 2.0):
        mixed = found(SCORES, power)
        for name in plain:
            expected = plain[name] - sum((1 - SCORES[image][i]**power) * one[name] for (image, i), one in adds.items())
            assert mixed[name] == pytest.approx(expected, rel=2e-3, abs=2e-5), name
    boxes = next(name for name in plain if 'bbox' in name)
    assert plain[boxes] == pytest.approx(sum(one[boxes] for one in adds.values()), rel=1e-3)  # all of it is objects'
    assert sum(one[boxes] > 0 for one in adds.values()) >= 4


@pytest.mark.parametrize('kind', ['gfl', 'atss', 'rtmdet', 'tood'])
def test_rows_recomputed_with_loops(kind):
    """Level by level, image by image, prior by prior, from the assignment and the rows of the plain loss."""
    model, batch = model_of(kind), scored(SCORES, sizes=((96, 128),) * 3)  # no prior lies outside
    owners = owners_of(model, batch)
    with rows_heard(model) as heard:
        plain = losses_of(model, copy.deepcopy(batch))
    with weighed_by_score(model):
        weighed = losses_of(model, copy.deepcopy(batch))
    images = len(batch['data_samples'])
    factors = torch.ones(images, len(owners[0]))
    for n, row in enumerate(owners):
        for p, owner in enumerate(row.tolist()):
            if owner > 0:
                factors[n, p] = SCORES[n][owner - 1]
    served = torch.stack(owners) > 0
    by_name = {name: [(rows, divisor) for other, rows, divisor in heard if other == name]
               for name in ('loss_cls', 'loss_bbox', 'loss_dfl', 'loss_centerness')}
    sizes = [len(rows) // images for rows, _ in by_name['loss_cls']]
    assert sum(sizes) == len(owners[0])
    expected = {name: [] for name in by_name}
    start = 0
    for i, size in enumerate(sizes):
        here, mask = (part[:, start:start + size].flatten() for part in (factors, served))
        start += size
        rows, divisor = by_name['loss_cls'][i]
        expected['loss_cls'].append(sum(float(f * row.sum()) for f, row in zip(here, rows)) / float(divisor))
        for name in ('loss_bbox', 'loss_dfl', 'loss_centerness'):
            if mask.any() and by_name[name]:
                rows, divisor = by_name[name][len(expected[name])]
                each = rows.view(int(mask.sum()), -1)
                expected[name].append(sum(float(f * row.sum()) for f, row in zip(here[mask], each)) / float(divisor))
    for name, parts in expected.items():
        if parts and name in weighed:
            theirs, ours = sum(plain[name]), sum(weighed[name])
            unscored = sum(float(rows.sum()) / float(divisor) for rows, divisor in by_name[name])
            # losses are divided once more after the levels, alike in both
            assert float(ours / theirs) == pytest.approx(sum(parts) / unscored, rel=1e-3), name
            assert float(ours) < float(theirs)


def test_toods_first_epochs_are_reached_too():
    model = model_of('tood')
    model.bbox_head.initial_epoch = 1000
    plain = sums(losses_of(model, scored(None)))
    with weighed_by_score(model):
        half = sums(losses_of(model, scored({0: [0.5] * 3, 2: [0.5] * 2})))
    assert float(half['loss_bbox']) == pytest.approx(0.5 * float(plain['loss_bbox']), rel=1e-4)
    assert half['loss_cls'] < plain['loss_cls']


def test_gradients_follow():
    """A score of 0 takes an object out of the box losses."""
    model = model_of('atss')
    grads = []
    for scores in ({0: [0.] * 3, 2: [0.] * 2}, {0: [1.] * 3, 2: [0.] * 2}):
        model.zero_grad()
        with weighed_by_score(model):
            sums(losses_of(model, scored(scores)))['loss_bbox'].backward()
        grads.append(sum(float(p.grad.abs().sum()) for p in model.bbox_head.atss_reg.parameters()
                         if p.grad is not None))
    assert grads[0] == 0 < grads[1]


def test_heads_that_derive_from_them_and_change_nothing_are_known():
    for kind, index in (('rtmdet', 2), ('paa', 0)):
        assert kind_of(model_of(kind).bbox_head) is KINDS[index]
    for kind in ('vfnet', 'ddod', 'retinanet', 'yolof'):
        assert kind_of(build(dense_cfg(kind)).bbox_head) is None
