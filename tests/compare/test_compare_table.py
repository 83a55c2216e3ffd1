"""The table fits a terminal whatever the names are, and JSON holds every number."""
import json

import pytest
from mmengine.config import Config

from kd_det.compare import table
from kd_det.compare.accuracy import FIGURES, Accuracy
from kd_det.compare.cost import Latency
from kd_det.compare.rows import Member, Row
from kd_det.compare.runs import Run

NAMES = ('faster-rcnn_r18_fpn-c64_8e_bccd-320x240', 'faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120',
         'faster-rcnn_r18-w16_fpn-c64_distill-all_8e_bccd-160x120')


def row(name, aps, times):
    members = [Member(Run(name, name, Config(), 'x.pth'), seed, name,
                      Accuracy({**dict.fromkeys(FIGURES, 7.25), 'AP': ap}, {'RBC': ap}), 'e.json',
                      148., 49.) for seed, ap in enumerate(aps)]
    return Row(name, members, 12_345_678, 3.456e9, [(160, 128)], Latency(times))


@pytest.fixture
def rows():
    return [row(NAMES[0], [50.], [100., 110., 300.]), row(NAMES[1], [45.], [50., 60., 70.]),
            row(NAMES[2], [47.], [55., 65., 75.])]


@pytest.fixture
def folded(rows):
    return [rows[0], row(NAMES[1], [44., 45., 46.], [50., 60., 70.])]


def test_three_runs_are_one_table_in_a_terminal(rows):
    text = table.text('detector', [r.name for r in rows], table.main_columns(rows), width=120)
    assert max(map(len, text.split('\n'))) <= 120
    assert '\n\n' not in text
    second = next(line for line in text.split('\n') if ' 45.0 ' in line).split()
    assert second[1:] == ['45.0', '-5.0', *['7.2'] * 5, '12.3', '3.46', '60.0', '68.0', '16.7',
                          '0.55x', '148']


@pytest.mark.parametrize('width', [60, 80, 100, 120, 200])
def test_no_width_is_exceeded_and_no_name_or_number_lost(folded, width):
    columns = table.main_columns(folded)
    text = table.text('detector', [r.name for r in folded], columns, width)
    assert max(map(len, text.split('\n'))) <= width
    for column in columns:
        assert all(cell in text for cell in column.cells)
    assert '45.0 ± 1.0' in text
    # a wrapped name can be read off the left column, whose end the unit 'seeds' marks
    lines = text.split('\n\n')[0].split('\n')
    end = lines[1].index('seeds')
    assert ''.join(line[:end].strip() for line in lines[3:]) == NAMES[0] + NAMES[1]


def test_accuracy_and_cost_are_the_blocks_of_a_table_that_does_not_fit(folded):
    blocks = table.text('detector', [r.name for r in folded], table.main_columns(folded),
                        110).split('\n\n')
    assert [block.split('\n')[0].split()[-1] for block in blocks] == ['APl', 'file']


def test_markdown(folded):
    lines = table.markdown('detector', ['a|b', 'c'], table.main_columns(folded)).split('\n')
    assert lines[0].startswith('| detector | n (seeds) | AP | ΔAP | AP50 |')
    assert lines[2].startswith('| a\\|b | 1 | 50.0 |  |')
    assert lines[3].startswith('| c | 3 | 45.0 ± 1.0 | -5.0 |')
    assert len({line.replace('\\|', '').count('|') for line in lines}) == 1


def test_class_ap_has_a_line_a_class(folded):
    names, columns = table.class_columns(folded)
    assert names == ['RBC']
    assert [column.cells for column in columns] == [['50.0'], ['45.0 ± 1.0']]


def test_json_keeps_what_the_table_rounds(folded):
    folded[0].members[0].accuracy.figures['APs'] = None
    text = json.dumps(table.as_json(folded, ['remark'], {'torch': '2'}), allow_nan=False)
    first, second = json.loads(text)['rows']
    assert first['parameters'] == 12_345_678
    assert first['accuracy']['APs'] is None
    assert second['accuracy']['AP'] == {'mean': 45., 'sd': 1., 'values': [44., 45., 46.]}
    assert second['ap_difference'] == -5.
    assert second['latency']['ratio'] == pytest.approx(60 / 110)
    assert [run['seed'] for run in second['runs']] == [0, 1, 2]


def test_three_digits():
    assert [table._three(v) for v in (None, .0123, 1.234, 12.34, 123.4, 1234.)] == [
        '-', '0.01', '1.23', '12.3', '123', '1234']
