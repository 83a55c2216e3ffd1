"""Study rows of CoLAD runs: one run, two networks."""
import json

import pytest

from kd_det.compare.logs import read_log
from kd_det.errors import StudyError
from kd_det.study.definition import load_study
from kd_det.study.table import study_table


def test_the_second_network_of_a_colad_run_has_its_row(tmp_path):
    """One run, two rows: the second network's figures come from the first's record and are never trained apart."""
    row = dict(name='colad', config='c.py', seeds=[0])
    content = dict(name='s', split='a->b', base='base', rows=[
        dict(name='base', config='b.py', seeds=[0]), row,
        dict(row, name='colad-second', shared='s/colad', network='second', base='base')])
    (tmp_path / 's.json').write_text(json.dumps(content))
    study = load_study(str(tmp_path / 's.json'))
    folder = tmp_path / 'results' / 's'
    folder.mkdir(parents=True)
    record = dict(seed=0, config_sha256='0', wall_seconds=3600, accuracy=dict(AP=40.0, AP50=60.0), first_teaches=0.25,
                  peer=dict(accuracy=dict(AP=50.0, AP50=70.0), per_class={}))
    (folder / 'colad_seed0.json').write_text(json.dumps(record))
    (folder / 'base_seed0.json').write_text(json.dumps(dict(record, accuracy=dict(AP=39.0, AP50=58.0),
                                                            first_teaches=1)))
    table = study_table(study, str(tmp_path / 'results'))
    assert '| colad |  | 1 | 40.0 | 60.0 | +1.0 |' in table and '| colad-second |  | 1 | 50.0 | 70.0 | +11.0 |' in table
    assert 'colad: the first network assigned in 25 % of the decisions.' in table
    assert '2 runs, 2.0 hours' in table
    content['rows'][2].pop('shared')
    (tmp_path / 's.json').write_text(json.dumps(content))
    with pytest.raises(StudyError, match='beside shared'):
        load_study(str(tmp_path / 's.json'))


def test_a_log_of_two_networks_gives_both_accuracies(tmp_path):
    session = tmp_path / '20260101_000000' / 'vis_data'
    session.mkdir(parents=True)
    lines = [dict(loss=1.0, iter=1, epoch=1, first_teaches=0.5),
             {'coco/bbox_mAP': 0.4, 'peer/coco/bbox_mAP': 0.5, 'coco/RBC_precision': 0.3,
              'peer/coco/RBC_precision': 0.2, 'step': 1}]
    (session / '20260101_000000.json').write_text('\n'.join(map(json.dumps, lines)) + '\n')
    found, = read_log(str(tmp_path)).records
    assert found.accuracy.figures['AP'] == 40 and found.peer.figures['AP'] == 50
    assert found.accuracy.per_class == {'RBC': 30} and found.peer.per_class == {'RBC': 20}
