"""Configs compared key by key, and read from their dump without running it."""
import pytest

from kd_det.config_difference import differing, flat, plain, read_dumped


def test_plain_makes_tuples_lists_and_the_rest_text():
    assert plain({1: (2, [None, True]), 'k': {3.5}}) == {'1': [2, [None, True]], 'k': '{3.5}'}


def test_flat_keeps_empty_values_and_leaves_out_what_it_is_told():
    cfg = dict(a=dict(b=[1, dict(c=2)], d={}), e=[])
    assert flat(cfg) == {'a.b.0': 1, 'a.b.1.c': 2, 'a.d': {}, 'e': []}
    assert flat(cfg, keep=lambda key: key != 'a.b') == {'a.d': {}, 'e': []}


def test_differing_tells_a_missing_key_from_none():
    assert differing(dict(a=1, b=None, c=2), dict(a=1, c=3)) == ['b', 'c']
    assert differing({}, {}) == []


def test_a_dump_is_read_as_literals_and_calls_stay_text():
    text = "model = dict(type='X', **{'a.b': 1}, levels=(0, -1))\nother = exit(3)\nimport os\nmodel.a = 3\n"
    assert read_dumped(text) == dict(model=dict(type='X', levels=[0, '-1']) | {'a.b': 1}, other='exit(3)')
    with pytest.raises(SyntaxError):
        read_dumped('model = (')
