"""How far the assignments of two networks agree that learn together: counted by hand, logged over steps and ranks."""
import itertools
from types import SimpleNamespace

import pytest
import torch
from conftest import build, losses_of, make_batch
from mmengine.hooks import LoggerHook
from mmengine.logging import HistoryBuffer
from test_colad import BATCH, KINDS, cfg_of, colad_cfg, decided, pair, value  # noqa: F401

from kd_det.assignment.agreement import Agreement, agreement
from kd_det.engine import agreement_hook
from kd_det.engine.attach import hooks_of
from kd_det.errors import ConfigError


def test_counts_by_hand():
    """Three objects, the fourth has no candidate: the first agrees, the second differs, the third has no positive."""
    objects = torch.tensor([0, 0, 0, 1, 1, 1, 2])
    first = torch.tensor([1, 1, 0, 1, 0, 1, 0]).bool()
    second = torch.tensor([1, 1, 0, 1, 1, 0, 0]).bool()
    found = Agreement(*agreement(first, second, objects, 4).tolist())
    assert found == Agreement(common=3, either=5, differing=1, objects=3)
    assert found.positives_iou == 3 / 5 and found.objects_differing == 1 / 3
    none = Agreement(*agreement(first & False, second & False, objects, 4).tolist())
    assert none.positives_iou is None and none.objects_differing == 0
    assert Agreement(0, 0, 0, 0).objects_differing is None


def positives_of(assignments):
    """(image, prior, object) of all positives, from what both heads are told."""
    found = set()
    for image, decision in enumerate(assignments.decisions):
        if isinstance(decision.result, tuple):  # PAA: labels of all anchors; whose they are the candidates say
            labels, priors = decision.result[0], decision.evidence['candidates (train_cfg.assigner)']
            owners = decision.evidence['candidates\' objects (train_cfg.assigner)']
            found |= {(image, int(p), int(o)) for p, o in zip(priors, owners) if labels[p] < 2}
        else:
            owners = decision.result.gt_inds
            found |= {(image, int(p), int(owners[p]) - 1) for p in (owners > 0).nonzero().flatten()}
    return found


@pytest.mark.parametrize('kind', KINDS)
def test_it_is_that_of_the_assignments_which_either_network_would_make(kind, decided):  # noqa: F811
    """Against the two runs in which one of them decides alone; losses are the same to the bit, measured or not."""
    alone = []
    for network in ('first', 'second'):
        model, *_ = pair(kind, criterion=dict(type='FixedCriterion', network=network), agreement_interval=0)
        losses_of(model, make_batch(**BATCH))
        alone.append(positives_of(decided[-1][0]))
        assert decided[-1][1].agreement is None and model.terms[0].take_agreement().tolist() == [0] * 4
    owners = [{key: {p for _, p, _ in group} for key, group in itertools.groupby(
        sorted(one, key=lambda row: (row[0], row[2])), key=lambda row: (row[0], row[2]))} for one in alone]
    objects = sum(BATCH['objects'])
    differing = sum(owners[0].get(key) != owners[1].get(key) for key in owners[0].keys() | owners[1].keys())
    expected = [len(alone[0] & alone[1]), len(alone[0] | alone[1]), differing, objects]
    assert 0 < expected[0] < expected[1] and differing > 0
    losses = []
    for interval in (0, 1):
        model, *_ = pair(kind, agreement_interval=interval)
        losses.append(losses_of(model, make_batch(**BATCH)))
    assert model.terms[0].take_agreement().tolist() == expected
    assert losses[0].keys() == losses[1].keys()
    assert all(torch.equal(value(losses[0], name), value(losses[1], name)) for name in losses[0] if 'loss' in name)


@pytest.mark.parametrize('kind', KINDS)
def test_equal_networks_agree_and_steps_between_are_not_looked_at(kind):
    model, *_ = pair(kind, (8, 8), (1, 1), agreement_interval=3)
    seen = []
    for _ in range(4):
        losses_of(model, make_batch(**BATCH))
        seen.append(Agreement(*model.terms[0].take_agreement().tolist()))
    assert seen[1] == seen[2] == Agreement(0, 0, 0, 0)
    for found in (seen[0], seen[3]):
        assert found.positives_iou == 1 and found.objects_differing == 0 and found.objects == sum(BATCH['objects'])
    losses_of(model, make_batch(sizes=((64, 96),), objects=(0,)))  # no object, nothing to compare
    assert model.terms[0].take_agreement().tolist() == [0] * 4


def test_unknown_intervals_are_refused():
    with pytest.raises(ConfigError, match=r'agreement_interval.*-1'):
        build(colad_cfg(cfg_of('paa'), cfg_of('paa'), agreement_interval=-1))


def test_logged_with_each_line_over_steps_and_ranks(monkeypatch):
    """Ratios of sums, not means of ratios; the other rank counts as much."""
    model, *_ = pair('paa', agreement_interval=1)
    assert agreement_hook.AgreementHook in hooks_of(model)
    monkeypatch.setattr(agreement_hook, 'all_reduce',
                        lambda counts: counts.add_(torch.tensor([10., 10, 0, 1]).double()))
    scalars, said = {}, []
    hub = SimpleNamespace(update_scalar=lambda name, value: scalars.setdefault(name, HistoryBuffer()).update(value))
    runner = SimpleNamespace(model=model, hooks=[LoggerHook(interval=2)], message_hub=hub, train_dataloader=range(5),
                             logger=SimpleNamespace(info=said.append), epoch=0, iter=0)
    hook = agreement_hook.AgreementHook()
    counts = [[1., 4, 1, 2], [3, 4, 0, 2], [1, 2, 1, 1], [0, 0, 0, 0], [5, 10, 1, 1]]
    for i, one in enumerate(counts):
        model.terms[0]._add(torch.tensor(one).double())
        hook.after_train_iter(runner, i)
    assert scalars['train/positives_iou']._log_history.tolist() == [14 / 18, 11 / 12, 15 / 20]
    assert scalars['train/objects_differing']._log_history.tolist() == [1 / 5, 1 / 2, 1 / 2]
    hook.after_train_epoch(runner)
    assert said == ['CoLAD: the two networks\' own assignments have 80.0 % of their positives in common (IoU), and '
                    'differ for 33.3 % of the objects']
