"""How often a distilled step makes the host wait: bounds that only hold while no term reads values one by one."""
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))
import host_syncs  # noqa: E402

from kd_det.assignment import gmm  # noqa: E402


@pytest.fixture
def waits(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)  # teachers' configs are named from here
    monkeypatch.setattr(gmm, '_ASK_EVERY', dict(gmm._ASK_EVERY))
    return lambda name: host_syncs.count(host_syncs.build(name, str(tmp_path)), batches=1).total()


def test_distilled_faster_rcnn_waits_five_times_more_than_plain(waits):
    """Four are the teacher's RoI extractor, once a level, and one is the RPN term."""
    assert waits('faster_rcnn/all') - waits('faster_rcnn/base') <= 5


def test_bckd_waits_no_more_than_plain(waits):
    """Targets are heard, positives counted and boxes weighted without reading a value."""
    assert waits('gfl/bckd') == waits('gfl/base')


def test_lad_waits_less_than_150_times(waits):
    assert waits('paa/lad') < 150


def test_the_mixture_fit_is_the_same_however_seldom_it_asks(monkeypatch):
    costs = torch.rand(200, 45, generator=torch.Generator().manual_seed(0)).sort(1).values
    lengths = torch.arange(200) % 46
    often = gmm.fit_two_gaussians(costs, lengths)
    monkeypatch.setattr(gmm, '_ASK_EVERY', {})
    seldom = gmm.fit_two_gaussians(costs, lengths)
    assert all(one.equal(other) for one, other in zip(often, seldom))


@pytest.mark.parametrize('name', ['colad/paa-std-mean', 'colad/rtmdet-std-mean'])
def test_comparing_two_networks_assignments_waits_for_nothing(name, tmp_path, monkeypatch):
    """In the steps in which it is done, too; PAA's mixtures of all three assignments are one fit."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(gmm, '_ASK_EVERY', dict(gmm._ASK_EVERY))
    found = []
    for interval in (0, 1):
        model = host_syncs.build(name, str(tmp_path))
        model.terms[0].agreement_interval = interval
        found.append(host_syncs.count(model, batches=1).total())
        assert bool(model.terms[0].take_agreement().any()) == bool(interval)
    assert found[0] == found[1]
