"""kd-det: every command has a help with examples, exit statuses mean what they say, shipped configs have names."""
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.hub import get_config

from kd_det.cli import main as cli
from kd_det.cli.command import call
from kd_det.config import load_config
from kd_det.errors import ConfigError
from kd_det.shipped import shipped_configs, study_file
from kd_det.version import __version__

ROOT = Path(__file__).resolve().parents[2]
STUDENT = 'kd_det::faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120.py'
DISTIL = 'kd_det::distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c32_6e_digits-160x120_distill-w32.py'


def process(*words, cwd):
    return subprocess.run([sys.executable, '-W', 'ignore', *words], cwd=cwd, capture_output=True, text=True,
                          timeout=300, env={**os.environ, 'PYTHONPATH': str(ROOT)})


@pytest.mark.parametrize('name', cli.COMMANDS)
def test_help_of_every_command(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*name.split(), '--help'])
    text = capsys.readouterr().out
    assert stop.value.code == 0 and f'kd-det {name}' in text.split('examples:')[1]


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(['--version'])
    assert stop.value.code == 0 and capsys.readouterr().out.split() == ['kd_det', __version__]


def test_bad_input_is_one_line_and_status_2(capsys):
    assert cli.main(['plan', 'nowhere.py']) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert cli.main(['plan', 'kd_det::lad/nowhere.py']) == 2
    assert 'kd-det configs' in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        cli.main(['nowhere'])
    assert stop.value.code == 2


def test_an_interrupt_is_status_130(monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt
    monkeypatch.setattr(cli.configs, 'run', interrupted)
    assert cli.main(['configs']) == 130


def test_configs_lists_by_part_of_the_name_and_by_pattern(capsys):
    assert cli.main(['configs', 'digits-160x120_lad', '--names']) == 0
    name = 'kd_det::lad/paa_r18-w8_fpn-c32_6e_digits-160x120_lad-r18-w16.py'
    assert capsys.readouterr().out.split() == [name]
    assert cli.main(['configs', 'digits-160x120_lad']) == 0
    first = (ROOT / 'configs' / name.removeprefix('kd_det::')).read_text().splitlines()[0]
    assert capsys.readouterr().out.splitlines() == [name, '    ' + first.removeprefix('# ')]
    assert shipped_configs('*_pkd-*') == shipped_configs('kd_det::pkd/') != []
    assert len(shipped_configs()) == len([one for one in (ROOT / 'configs').glob('*/*.py')
                                          if one.parent.name != '_base_'])
    assert cli.main(['configs', 'nowhere']) == 2


def test_a_shipped_distil_config_anywhere(tmp_path, monkeypatch, capsys):
    """By its name, as the base of a user's config, and the teacher's config inside it; the student's type is found."""
    here = load_config(str(ROOT / 'configs' / DISTIL.removeprefix('kd_det::'))).model
    monkeypatch.chdir(tmp_path)
    assert load_config(DISTIL).model == here and here.student_type == 'FasterRCNN'
    (tmp_path / 'mine.py').write_text(f'_base_ = {DISTIL!r}\nmodel = dict(hints=[])\n')
    mine = load_config('mine.py')
    assert mine.model.student_type == 'FasterRCNN' and mine.model.hints == [] and mine.model.teacher == here.teacher
    assert "_scope_='kd_det'" not in mine.pretty_text  # in a scope called kd_det MMDetection's names are not found
    assert load_config(mine.model.teacher.config).model.type == 'FasterRCNN'
    assert cli.main(['plan', 'mine.py', '--student', STUDENT]) == 0
    assert 'TeacherBoundedLoss' in capsys.readouterr().out


def test_a_file_here_comes_before_the_shipped_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = STUDENT.replace('kd_det::', 'configs/')
    os.makedirs(os.path.dirname(name))
    Path(name).write_text('model = dict(type="Mine")\n')
    assert load_config(name).model.type == 'Mine'
    assert Config.fromfile(name).model.type == 'Mine'


def test_mmdetections_configs_are_found_by_name_without_its_model_pages(tmp_path, monkeypatch):
    name = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'
    slow = get_config(name)
    monkeypatch.setattr('mmengine.config.utils.load', None)  # what reads the pages
    child = tmp_path / 'mine_r50.py'
    child.write_text(f"_base_ = '{name}'\nmodel = dict(neck=dict(num_outs=4))\n")
    assert load_config(name).to_dict() == slow.to_dict()
    inherited = load_config(str(child))
    # as MMEngine
    assert inherited.model.neck.num_outs == 4 and str(inherited.to_dict()).count("'_scope_': 'mmdet'") > 20
    assert inherited.train_dataloader.batch_size == slow.train_dataloader.batch_size
    with pytest.raises(ConfigError, match=r'no such config; did you mean .*faster-rcnn_r50_fpn_1x_coco\.py'):
        load_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_cocoo.py')
    with pytest.raises(ConfigError, match='did you mean faster_rcnn'):
        load_config('mmdet::fastr_rcnn/faster-rcnn_r50_fpn_1x_coco.py')


def test_study_files_have_names():
    assert json.loads(Path(study_file('quickstart_digits')).read_text())['name'] == 'quickstart_digits'
    assert study_file('nowhere') == 'nowhere'


def test_module_form_of_scripts(tmp_path):
    """In an interpreter that has imported nothing yet."""
    script = tmp_path / 'script.py'
    script.write_text('import sys; from mmdet.registry import MODELS\n'
                      "print(MODELS.get('Distiller').__module__, sys.argv[1:])\n")
    done = process('-m', 'kd_det', 'script.py', 'a', cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "kd_det.detectors.distiller ['a']", done.stderr[-2000:]  # the forks say more


@pytest.mark.parametrize('run, words, status', [
    (lambda: runpy.run_module('kd_det', run_name='__main__'), ['configs', 'pkd'], 0),
    (lambda: runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__'), ['nowhere.py'], 2)])
def test_module_form_of_commands_and_doors(run, words, status, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['kd-det', *words])
    with pytest.raises(SystemExit) as stop:
        run()
    said = capsys.readouterr()
    assert stop.value.code == status and ('kd_det::pkd/' in said.out or "'nowhere.py' does not exist" in said.err)


@pytest.mark.parametrize('words', [('-m', 'kd_det', 'doctor', '--json'), ('-m', 'kd_det.doctor', '--json')])
def test_the_doctor_starts_where_mmengine_does_not(words, tmp_path):
    (tmp_path / 'mmengine.py').write_text('raise ImportError("broken on purpose")\n')
    done = process(*words, cwd=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and any('broken on purpose' in problem['what'] for problem in report['problems'])


def test_amp_and_other_flags_are_checked_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r'end the name in \.pkl'):
        call(cli.test, [STUDENT, 'none.pth', '--out', 'detections.json'])
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_goes_is_no_traceback():
    """As in ``kd-det configs | head -1``."""
    code = ('import sys; from kd_det.cli.command import guarded\n'
            'sys.exit(guarded("kd-det", lambda: print("line\\n" * 100000)))')
    # named so, the doctor is asked for, and MMDetection, of no interest here, is not imported
    with subprocess.Popen([sys.executable, '-c', code, 'kd_det.doctor'],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as command:
        # the forks' packages say something when they are imported
        while command.stdout.readline() not in ('line\n', ''):
            pass
        command.stdout.close()
        errors = command.stderr.read()
        assert command.wait(timeout=120) == 141
    assert 'Traceback' not in errors and 'Exception ignored' not in errors
