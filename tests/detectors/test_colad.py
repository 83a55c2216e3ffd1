"""CoLAD: one assignment for two networks, which share nothing else."""
import copy
import functools
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmengine.config import Config, ConfigDict
from mmengine.structures import InstanceData

from kd_det.assignment import co_learning_rtmdet, co_learning_step
from kd_det.errors import AssignmentMismatch, CheckpointMismatch, ConfigError
from kd_det.plain import deployed_config, student_model

BATCH = dict(sizes=((64, 96),) * 3, objects=(3, 0, 4), seed=3)
KINDS = ('paa', 'rtmdet')
ROOT = Path(__file__).parents[2]


def cfg_of(kind, width=8, **head):
    return dense_cfg(kind, width=width, **(dict(type='BatchedPAAHead') if kind == 'paa' else {}), **head)


def stirred(model, seed=5):
    """Fresh heads all predict the same; these do not."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for layer in getattr(model.bbox_head, 'rtm_reg', ()):
            layer.bias += 2
    return model


def colad_cfg(first, peer, checkpoint=None, **options):
    cfg = ConfigDict(copy.deepcopy(first))
    cfg.update(student_type=cfg.type, type='CoLAD', peer=dict(config=copy.deepcopy(peer), checkpoint=checkpoint),
               **options)
    return cfg


def pair(kind, widths=(8, 16), seeds=(1, 2), **options):
    """A CoLAD model in eval mode (no batch statistics) with stirred weights, and the two plain detectors."""
    plain = [stirred(build(cfg_of(kind, width), seed), seed).eval() for width, seed in zip(widths, seeds)]
    model = build(colad_cfg(cfg_of(kind, widths[0]), cfg_of(kind, widths[1]), **options))
    model.load_state_dict(plain[0].state_dict(), strict=True)
    model.peer.load_state_dict(plain[1].state_dict(), strict=True)
    return model.eval(), *plain


def value(losses, name):
    found = losses[name]
    return sum(found) if isinstance(found, list) else found


@pytest.fixture
def decided(monkeypatch):
    """Every assignment that a CoLAD step makes, in order."""
    seen, original = [], co_learning_step.CoLearningStep.decide

    def listen(self, *calls, **options):
        seen.append(original(self, *calls, **options))
        return seen[-1]
    monkeypatch.setattr(co_learning_step.CoLearningStep, 'decide', listen)
    return seen


@pytest.mark.parametrize('kind', KINDS)
def test_two_identical_networks_have_the_plain_loss(kind):
    for criterion in ('StdMeanCriterion', 'FisherCriterion'):
        model, plain, _ = pair(kind, (8, 8), (1, 1), criterion=dict(type=criterion))
        expected, found = losses_of(plain, make_batch(**BATCH)), losses_of(model, make_batch(**BATCH))
        for name in expected:
            assert torch.equal(value(found, name), value(expected, name)), name
            assert torch.equal(value(found, f'peer.{name}'), value(expected, name)), name
        assert total(found) == sum(2 * value(expected, name) for name in expected) and found['first_teaches'] == 1
        own = {name: p.grad for name, p in _graded(plain, expected)}
        for name, p in _graded(model, found):
            reference = own[name.removeprefix('peer_network.0.')]
            assert torch.allclose(p.grad, reference, rtol=1e-5, atol=1e-7), name


def _graded(model, losses):
    total(losses).backward()
    return [(name, p) for name, p in model.named_parameters() if p.grad is not None]


@pytest.mark.parametrize('kind', KINDS)
def test_fixed_first_is_lad_with_the_first_as_live_teacher(kind, tmp_path):
    model, first, second = pair(kind, criterion=dict(type='FixedCriterion', network='first'))
    lad = cfg_of(kind, 16)
    lad.update(student_type=lad.type, type='LADDistiller', box_loss_average='head',
               teacher=dict(config=cfg_of(kind, 8), checkpoint=save_checkpoint(first, tmp_path / 'first.pth')))
    lad = build(lad).eval()
    lad.load_state_dict(second.state_dict(), strict=True)
    found, taught, alone = (losses_of(m, make_batch(**BATCH)) for m in (model, lad, first))
    assert taught.pop('teacher_positives') > 0
    for name in taught:
        assert torch.equal(value(found, f'peer.{name}'), value(taught, name)), name
        assert torch.equal(value(found, name), value(alone, name)), name
    assert found['first_teaches'] == 1 and found['decisions'] > 0


@pytest.mark.parametrize('kind, granularity', [('paa', 'level'), ('paa', 'object'), ('paa', 'image'),
                                               ('rtmdet', 'object'), ('rtmdet', 'image')])
def test_swapping_the_networks_swaps_the_results(kind, granularity, decided):
    options = dict(granularity=granularity, criterion=dict(type='MeanCostCriterion' if granularity == 'image'
                                                           else 'StdMeanCriterion'))
    model, first, second = pair(kind, **options)
    swapped = build(colad_cfg(cfg_of(kind, 16), cfg_of(kind, 8), **options)).eval()
    swapped.load_state_dict(second.state_dict(), strict=True)
    swapped.peer.load_state_dict(first.state_dict(), strict=True)
    one, other = (losses_of(m, make_batch(**BATCH)) for m in (model, swapped))
    for name in [n for n in one if 'loss' in n and not n.startswith('peer.')]:
        assert torch.equal(value(one, name), value(other, f'peer.{name}'))
        assert torch.equal(value(one, f'peer.{name}'), value(other, name))
    assert one['decisions'] == other['decisions']
    assert torch.allclose(one['first_teaches'], 1 - other['first_teaches'])
    for a, b in zip(decided[0][0].decisions, decided[1][0].decisions):
        assert torch.equal(*(d.result[0] if kind == 'paa' else d.result.gt_inds for d in (a, b)))


@pytest.mark.parametrize('kind', KINDS)
def test_both_receive_one_assignment_and_no_gradient_crosses(kind, monkeypatch):
    model, *_ = pair(kind)
    method = 'paa_reassign' if kind == 'paa' else None
    received = {0: [], 1: []}
    for i, head in enumerate((model.bbox_head, model.peer.bbox_head)):
        original = head.loss_cls.forward

        def listen(*args, _original=original, _into=received[i], **kwargs):
            labels = args[1][0] if isinstance(args[1], tuple) else args[1]
            _into.append(labels.clone())
            return _original(*args, **kwargs)
        monkeypatch.setattr(head.loss_cls, 'forward', listen)
    losses = losses_of(model, make_batch(**BATCH))
    final = {i: seen[-1] if method else torch.cat(seen) for i, seen in received.items()}
    assert torch.equal(final[0], final[1]) and (final[0] < 2).any()
    names = [name for name in losses if 'loss' in name]
    for prefix, mine in (('peer.', lambda n: n.startswith('peer_network')), ('', lambda n: not n.startswith('peer_'))):
        model.zero_grad()
        kept = [value(losses, n) for n in names if n.startswith('peer.') == bool(prefix)]
        sum(kept).backward(retain_graph=True)
        for name, parameter in model.named_parameters():
            if not mine(name):
                assert parameter.grad is None or not parameter.grad.any(), name
        assert any(p.grad is not None and p.grad.any() for n, p in model.named_parameters() if mine(n))


@pytest.mark.parametrize('criterion', [dict(type='StdMeanCriterion'), dict(type='FisherCriterion'),
                                       dict(type='RandomCriterion'), dict(type='FixedCriterion', network='second')])
def test_trains_with_every_criterion_in_one_mixture_fit(criterion, monkeypatch):
    from kd_det.assignment import paa_separation
    fits, original = [], paa_separation.fit_two_gaussians
    monkeypatch.setattr(paa_separation, 'fit_two_gaussians', lambda *args: fits.append(len(args[1])) or original(*args))
    model = build(colad_cfg(cfg_of('paa'), cfg_of('paa', 16), criterion=criterion))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(2):
        losses = losses_of(model, make_batch(**{**BATCH, 'seed': step}))
        optimizer.zero_grad()
        total(losses).backward()
        optimizer.step()
        assert total(losses).isfinite() and 0 <= losses['first_teaches'] <= 1
    assert len(fits) == 2  # one for both networks in each step
    moved = [name for name, p in model.named_parameters() if not torch.equal(start[name], p)]
    assert any(name.startswith('peer_network') for name in moved) and any(name.startswith('backbone') for name in moved)


# -- what the released code fails at ----------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('criterion', ['StdMeanCriterion', 'FisherCriterion', 'RandomCriterion'])
def test_batches_without_objects(kind, criterion):
    model, *_ = pair(kind, criterion=dict(type=criterion))
    losses = losses_of(model, make_batch(sizes=((64, 96),) * 2, objects=(0, 0)))
    total(losses).backward()
    assert total(losses).isfinite() and 'first_teaches' not in losses


def sparse_batch(boxes):
    """One image whose objects are exactly these."""
    batch = make_batch(sizes=((64, 96),), objects=(0,))
    sample = batch['data_samples'][0]
    sample.gt_instances = type(sample.gt_instances)(
        bboxes=torch.tensor(boxes), labels=torch.zeros(len(boxes), dtype=torch.long))
    return batch


def lonely(model, threshold):
    """A first assignment so strict that few anchors are candidates."""
    for network in (model, model.peer):
        network.bbox_head.assigner.pos_iou_thr = threshold
        network.bbox_head.assigner.neg_iou_thr = threshold
        network.bbox_head.assigner.match_low_quality = False
    return model


@pytest.mark.parametrize('criterion', ['StdMeanCriterion', 'FisherCriterion', 'MeanCostCriterion'])
@pytest.mark.parametrize('granularity', ['level', 'object', 'image'])
def test_no_and_single_candidates(criterion, granularity, decided):
    model, *_ = pair('paa', criterion=dict(type=criterion), granularity=granularity)
    anchor = model.bbox_head.prior_generator.grid_priors([(8, 12)] + [(1, 1)] * 4, device='cpu')[0][3 * 12 + 5]
    lonely(model, 0.999)
    # objects, but no candidate at all: none of the anchors is as small
    losses = losses_of(model, sparse_batch([[10., 10, 13, 12]]))
    total(losses).backward()
    assert total(losses).isfinite() and 'first_teaches' not in losses and decided[-1][0].decisions[0].result[3] == 0
    # one candidate: a decision with one cost, no positives, as in PAA
    losses = losses_of(model, sparse_batch([anchor.tolist()]))
    assert total(losses).isfinite() and losses['decisions'] == 1 and losses['first_teaches'] in (0, 1)
    costs = [call.arguments['pos_losses'] for call in _ask(model, sparse_batch([anchor.tolist()]))]
    assert len(costs[0]) == 1 and losses['first_teaches'] == float(costs[0] <= costs[1])


def test_no_object_has_two_candidates_on_a_level(decided):
    """Candidates on several levels, one on each: the released code takes a maximum of nothing."""
    model, *_ = pair('paa')
    priors = model.bbox_head.prior_generator
    original = priors.grid_priors

    def nested(*args, **kwargs):
        """One anchor of each level lies on the object, the others nowhere near."""
        levels = [level.clone() for level in original(*args, **kwargs)]
        for level in levels:
            level += 10_000
            level[0] = torch.tensor([16., 16, 48, 48])
        return levels
    for network in (model, model.peer):
        network.bbox_head.prior_generator.grid_priors = nested
    losses = losses_of(model, sparse_batch([[16., 16, 48, 50]]))
    total(losses).backward()
    assert total(losses).isfinite() and losses['decisions'] == 5
    first, second = (call.arguments['pos_losses'] for call in _ask(model, sparse_batch([[16., 16, 48, 50]])))
    assert len(first) == 5 and losses['first_teaches'] == (first <= second).float().mean()


def _ask(model, batch):
    from mmdet.models.utils import unpack_gt_instances
    data = model.data_preprocessor(batch, True)
    truths = unpack_gt_instances(data['data_samples'])
    calls = []
    for network in (model, model.peer):
        outputs = network.bbox_head(network.extract_feat(data['inputs']))
        calls += model.terms[0].co_learning.ask(network.bbox_head, (*outputs, truths[0], truths[2], truths[1]), 1)
    return calls


def test_costs_that_are_not_finite_name_the_network():
    for network in ('first', 'second'):
        model, *_ = pair('paa')
        with torch.no_grad():
            (model if network == 'first' else model.peer).bbox_head.atss_cls.bias += float('nan')
        with pytest.raises(ValueError, match=f'costs of the {network} network'):
            losses_of(model, make_batch(**BATCH))


def test_rtmdet_prior_claimed_for_two_objects_goes_to_the_lower_cost():
    """Two networks, two objects: each is chosen for one, and both claim the middle prior."""
    model, *_ = pair('rtmdet')
    assigner = model.bbox_head.assigner
    costs = torch.tensor([[1., 9], [3, 2], [9, 1.5]])  # (V, G), already mixed
    overlaps = torch.full((3, 2), 0.9)  # 2.7 in sum: two priors each
    call = co_learning_rtmdet.Call('assigner', assigner, dict(
        pred_instances=list(range(4)), gt_instances=make_batch(objects=(2, 0))['data_samples'][0].gt_instances), {},
                                   None)
    matching = co_learning_rtmdet._Matching(costs, overlaps, torch.tensor([True, True, False, True]))
    result = model.terms[0].co_learning._result(call, matching)
    assert result.gt_inds.tolist() == [1, 2, 0, 2]  # the second is claimed by both: 2 < 3


# -- what it is outside training
# ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', KINDS)
def test_state_dict_and_prediction_are_the_first_networks(kind):
    model, first, second = pair(kind)
    assert model.state_dict().keys() == first.state_dict().keys()
    first.load_state_dict(model.state_dict(), strict=True)
    second.load_state_dict(model.distill_state()['peer'], strict=True)
    data = first.data_preprocessor(make_batch(**BATCH), False)
    with torch.no_grad():
        for one, other in zip(*(m.predict(data['inputs'], copy.deepcopy(data['data_samples']))
                                for m in (model, first))):
            assert torch.equal(one.pred_instances.bboxes, other.pred_instances.bboxes)
            assert torch.equal(one.pred_instances.scores, other.pred_instances.scores)
    assert len(list(model.parameters())) == len(list(first.parameters())) + len(list(second.parameters()))
    model.to(torch.float64)
    assert {p.dtype for p in model.peer.parameters()} == {torch.float64}
    cfg = colad_cfg(cfg_of(kind), cfg_of(kind, 16), granularity='object')
    assert student_model(cfg) == cfg_of(kind)
    assert deployed_config(Config(dict(model=cfg)), 'second').model == cfg_of(kind, 16)


def test_the_first_network_begins_as_alone_and_the_peer_otherwise():
    plain, model = build(cfg_of('paa'), 4), build(colad_cfg(cfg_of('paa'), cfg_of('paa')), 4)
    after = torch.rand(1)
    assert all(torch.equal(p, plain.state_dict()[n]) for n, p in model.state_dict().items())
    weight = 'bbox_head.atss_cls.weight'
    assert not torch.equal(model.peer.state_dict()[weight], plain.state_dict()[weight])
    build(cfg_of('paa'), 4)
    assert torch.equal(after, torch.rand(1))


def test_peers_checkpoint_and_normalisation(tmp_path):
    peer_cfg = cfg_of('paa', 16)
    peer_cfg.data_preprocessor.update(mean=[90., 100., 110.], std=[40., 50., 60.], bgr_to_rgb=True)
    peer = stirred(build(peer_cfg, 2), 2).eval()
    path = save_checkpoint(peer, tmp_path / 'peer.pth')
    model = build(colad_cfg(cfg_of('paa'), peer_cfg, path,
                            criterion=dict(type='FixedCriterion', network='second'))).eval()
    assert any('re-normalised' in line for line in model.plan())
    found, alone = losses_of(model, make_batch(**BATCH)), losses_of(peer, make_batch(**BATCH))
    for name in alone:
        assert torch.allclose(found[f'peer.{name}'], alone[name], rtol=1e-4), name
    with pytest.raises(CheckpointMismatch, match=r'peer\.checkpoint'):
        build(colad_cfg(cfg_of('paa'), cfg_of('paa'), path))


def test_bad_configs_are_refused_in_words():
    def refused(match, first='paa', peer='paa', peer_options=None, **options):
        one = cfg_of(first) if isinstance(first, str) else first
        other = cfg_of(peer) if isinstance(peer, str) else peer
        cfg = colad_cfg(one, other, **options)
        cfg.peer.update(peer_options or {})
        with pytest.raises(ConfigError, match=match):
            build(cfg)
    refused(r"peer: unknown keys \['chekpoint'\]", peer_options=dict(chekpoint='a.pth'))
    refused("config 'nowhere.py' does not exist", peer_options=dict(config='nowhere.py'))
    refused("criterion.type: found 'StdCriterion'; registered are .*'StdMeanCriterion'",
            criterion=dict(type='StdCriterion'))
    refused("criterion: .*network: found 'third'", criterion=dict(type='FixedCriterion', network='third'))
    refused("granularity: found 'anchor'; BatchedPAAHead knows 'level', 'object', 'image'", granularity='anchor')
    refused("granularity: found 'level'; .* knows 'object', 'image'", 'rtmdet', 'rtmdet', granularity='level')
    refused('bbox_head.num_classes: 2, the peer has 3', peer=cfg_of('paa', num_classes=3))
    refused('bbox_head.topk: 9 in the first network, 5', peer=cfg_of('paa', topk=5))
    refused('1e5 outside', 'yolox', 'yolox')
    refused('higher is better', 'tood', 'tood')
    refused('classes and boxes apart', 'ddod', 'ddod')
    refused('nothing to distil', 'atss', 'atss')
    other = cfg_of('paa')
    other.bbox_head.anchor_generator.octave_base_scale = 4
    refused('priors of level 0 differ.*first network.*second', peer=other)


def test_rtmdet_compares_priors_in_the_objects_own_box():
    """Its neighbour's priors carry the same constant in both networks; without any in the box, the near ones count."""
    priors = torch.tensor([[4., 4, 8, 8], [12, 4, 8, 8], [20, 4, 8, 8], [28, 4, 8, 8], [100, 4, 8, 8]])
    boxes = torch.tensor([[0., 0, 16, 8], [16, 0, 32, 8], [5, 5, 7, 7]])  # the last holds no prior
    costs = torch.ones(5, 3)
    costs[1, 0] = torch.inf
    call = SimpleNamespace(owner=SimpleNamespace(soft_center_radius=3.0), arguments=dict(
        matching=co_learning_rtmdet._Matching(costs, costs, torch.ones(5, dtype=torch.bool)),
        gt_instances=InstanceData(bboxes=boxes), pred_instances=InstanceData(priors=priors)))
    found = co_learning_rtmdet.RTMDetCoLearning._candidates(call)
    assert found.T.tolist() == [[True, False, False, False, False], [False, False, True, True, False],
                                [True, True, True, True, False]]


def test_networks_with_other_candidates_are_an_error():
    model, *_ = pair('paa')
    model.peer.bbox_head.assigner.pos_iou_thr = model.peer.bbox_head.assigner.neg_iou_thr = 0.5
    with pytest.raises(AssignmentMismatch, match='candidates'):
        losses_of(model, make_batch(**BATCH))


@functools.cache
def loaded(config):
    """As a base, because MMDetection's own configs are marked with their scope when they are loaded alone."""
    return Config.fromstring(f"_base_ = '{config if '::' in config else ROOT / config}'", '.py')


@pytest.mark.parametrize('path', sorted((ROOT / 'configs' / 'colad').glob('*.py')), ids=lambda path: path.stem)
def test_configs_are_diffs_over_the_two_baselines(path):
    cfg, name = Config.fromfile(str(path)), path.stem.rsplit('_', 1)[0]
    base = loaded(f'mmdet::rtmdet/{name}.py' if name.startswith('rtmdet') else f'configs/paa/{name}.py')
    plain, own = student_model(cfg.model).to_dict(), base.model.to_dict()
    assert plain.pop('type') == 'SingleStageDetector' and own.pop('type')
    if path.stem.endswith('cop'):
        assert plain['bbox_head'].pop('type') == cfg.model.peer.cfg_options['model.bbox_head.type'] == 'COPHead'
        own['bbox_head'].pop('type')
    assert plain == own
    rest, others = cfg.to_dict(), base.to_dict()
    for key in ('model', 'custom_imports', 'auto_scale_lr'):  # RTMDet's inherits the batch size of another schedule
        rest.pop(key, None), others.pop(key, None)
    assert rest == others
    peer = loaded(cfg.model.peer.config)
    assert peer.model.data_preprocessor == cfg.model.data_preprocessor
    assert peer.optim_wrapper == cfg.optim_wrapper  # neither network is trained otherwise than alone


def test_cop_in_either_network():
    for one, other in (('COPHead', 'BatchedPAAHead'), ('PAAHead', 'COPHead')):
        model = build(colad_cfg(dense_cfg('paa', type=one), dense_cfg('paa', width=16, type=other)))
        losses = losses_of(model, make_batch(**BATCH))
        total(losses).backward()
        assert total(losses).isfinite()
