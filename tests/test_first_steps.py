"""The small configs of every method still begin as they did: first-step losses as recorded from an earlier commit.

Machines differ in the last bits, so 1e-4 relative. For equality bit for bit, over ten steps and down to the weights,
and to renew the record where a change of value is meant: ``tools/benchmarks/same_steps.py``.
"""
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'benchmarks'))
import first_steps  # noqa: E402

RECORD = json.loads((ROOT / 'tests' / 'data' / 'first_steps.json').read_text())


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp('first_steps')
    return first_steps.write_configs(str(ROOT), str(folder)), str(folder)


def test_every_case_is_recorded():
    assert RECORD.keys() == first_steps.CASES.keys()


@pytest.mark.parametrize('name', first_steps.CASES)
def test_first_step(name, folders, monkeypatch):
    monkeypatch.chdir(ROOT)  # teachers' configs are named from here
    cfg = first_steps.load(name, *folders)
    model = first_steps.build(cfg)
    losses = first_steps.values(next(first_steps.steps_of(cfg, model)))
    found = {key: value for key, value in losses.items() if 'loss' in key}
    assert found.keys() == RECORD[name].keys()
    for key, value in RECORD[name].items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-7), key
