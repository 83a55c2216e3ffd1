"""Bad input, as a user types it: an error in words that names the file or key, status 2, nothing on disk touched.

A case more is a line: the words of the command, and what the message must say. What stands in ``{...}`` is one of
:class:`Place`'s files. What is wrong inside a data set is in tests/mydata, what a config's keys hold in tests/engine.
"""
import os
import re
import shutil
from pathlib import Path

import data_folders as folders
import pytest
from conftest import build, save_checkpoint
from mmengine.logging import MMLogger
from small_pairs import FOREIGN, make_pair, model_of, write_config

from kd_det.cli import main as cli
from kd_det.workflow import running


class Place:
    """A folder with two pairs, data, and everything that can be wrong with a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.teacher, self.weights, self.student = make_pair(folder, 'faster')
        _, self.other, _ = make_pair(folder, 'gfl')
        self.own = save_checkpoint(build(model_of('faster', 8, 7)), folder / 'own.pth', tuple('abcdefg'))
        self.coco = str(folders.coco(folder / 'coco', (('train.json', 6), ('val.json', 4))))
        self.yolo = str(folders.yolo(folder / 'yolo'))
        distil = model_of('faster', 8, len(FOREIGN))
        distil.update(type='Distiller', student_type='FasterRCNN', terms=[dict(type='Hint', layer='neck')],
                      teacher=dict(config=self.teacher, checkpoint=self.weights))
        self.distil = write_config(folder / 'distil.py', distil)
        self.empty, self.text = self.file('empty.pth', ''), self.file('text.pth', 'hello\n')
        self.cut = self.file('cut.pth', Path(self.own).read_bytes()[:5000])
        self.file_there = self.file('a_file', 'mine')
        self.gone = str(folder / 'gone')

    def file(self, name: str, content: bytes | str) -> str:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def child(self, name: str, text: str) -> str:
        """A student's config that changes something."""
        return self.file(f'{name}.py', f'_base_ = {self.student!r}\n{text}\n')


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    return Place(tmp_path_factory.mktemp('place'))


def tree(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob('*') if path.is_file() and path.name != '.lock'}


def refused(words: list[str], message: str, place: Place, capsys) -> None:
    before = tree(place.folder)
    try:
        status = cli.main(words)
    except SystemExit as stop:  # argparse
        status = stop.code
    finally:
        MMLogger._instance_dict.clear()
    said = capsys.readouterr().err
    assert status == 2, (status, said)
    assert re.search(message, ' '.join(said.split())), said
    assert 'Traceback' not in said
    assert tree(place.folder) == before


DISTILL = 'distill --data {coco} --teacher {teacher} {weights} --student {student} --out {gone} --no-estimate'
"""A command that is right; ``--dry-run`` is not given, so that what is written would be seen."""

# -- kd-det distill: what is added or stands instead of it (a flag that is given twice counts as its last), words
DISTILL_CASES = [
    ('--student {own}', r"own\.pth' is no config by its name, which ends in '\.pth'; give a \.py file"),
    ('--student {coco}', r"coco' is a folder; give a \.py file"),
    ('--student {gone}.py', r"gone\.py' does not exist; give a \.py"),
    ('--student mmdet::no/thing.py', 'the installed MMDetection has no such config'),
    ('--student {distil}', r'distil\.py: it is itself a distil config; give the plain'),
    ('--teacher {weights} {teacher}', r"faster\.pth' is no config by its name"),
    ('--teacher {teacher} {gone}.pth', r"there is no checkpoint '.*gone\.pth'; give the file"),
    ('--teacher {teacher} {coco}', r"there is no checkpoint '.*coco'; give the file"),
    ('--teacher {teacher} {empty}', r"empty\.pth'.*damaged or cut off, or not a file that torch\.save wrote"),
    ('--teacher {teacher} {text}', r"text\.pth'.*damaged or cut off, or not a file"),
    ('--teacher {teacher} {cut}', r"cut\.pth'.*damaged or cut off"),
    ('--teacher {teacher} {other}', r'--teacher checkpoint .*gfl\.pth does not fit.*Give the config that'),
    ('--teacher-epochs 0', r"--teacher-epochs 0: .*knows the classes \('a', 'b', 'c'\), the data has \['disc'"),
    ('--data {gone}', r"--data: the folder '.*gone' does not exist"),
    ('--data {file_there}', r"--data: '.*a_file' is a file; the folder of the images is expected"),
    ('--format voc', r"no voc annotations in .*coco'; it holds 10 \.png, 2 \.json"),
    ('--format xyz', r"argument --format: invalid choice: 'xyz'"),
    ('--classes disc disc', r"--classes: found \['disc', 'disc'\]; names are expected, no two alike"),
    ('--classes cat', r"--classes: \['cat'\] are not among the classes of the annotations: \['disc', 'square'\]"),
    ('--data {yolo} --classes a', r'photo 0\.txt, line 1: class 1, but --classes names 1'),
    ('--val val.json', '--val: --train is needed beside it'),
    ('--train no.json', r'--train no\.json: no COCO file of that name .*annotations/train\.json'),
    ('--data {yolo} --val-share 1.5', '--val-share: found 1.5; a share between 0 and 1'),
    ('--method best', '--method best: unknown; known are chen, lad'),
    ('--method lad', r'--method lad does not suit this pair: .*These do: chen'),
    ('--epochs 0', '--epochs 0: at least 1'), ('--batch-size 0', '--batch-size 0: at least 1'),
    ('--student-size 0x0', '--student-size 0x0: at least 32x32'),
    ('--student-size wide', "--student-size: 'wide': WIDTHxHEIGHT in pixels"),
    ('--seed -1', r"--seed: '-1': a whole number from 0 to 2\^32 - 1"),
    ('--seed 99999999999', "--seed: '99999999999': a whole number"),
    ('--cfg-options lr', "--cfg-options: 'lr': KEY=VALUE is expected"),
    ('--cfg-options modle.x=3', "--cfg-options modle.x: .*did you mean 'model'"),
    ('--cfg-options model.backbone.depth=19', r'--student .*faster_student\.py: model: .*invalid depth 19'),
    ('--out {file_there}', r'--out .*a_file: .*a_file is no folder; name another place'),
    ('--out {file_there}/below', r'--out .*below: .*a_file is no folder'),
    ('--out {coco}', '--out .*coco: it lies in the data folder .*coco; name a folder outside'),
    ('--teacher {teacher} {weights} more', '--teacher: found .* more; CONFIG CHECKPOINT is expected'),
]


@pytest.mark.parametrize('change, message', DISTILL_CASES)
def test_distill(change, message, place, capsys):
    refused(f'{DISTILL} {change}'.format_map(vars(place)).split(), message, place, capsys)


# -- a student's config: its text, words
CONFIGS = [
    ("_base_ = './nowhere.py'", r"nowhere\.py.*A _base_ is relative to the file"),
    ("_base_ = ['./nowhere.py', 'kd_det::no/thing.py']", r'nowhere\.py|does not ship'),
    ("_base_ = 'kd_det::no/thing.py'", r"mine\.py': config 'kd_det::no/thing\.py' does not ship; kd-det configs"),
    ("_base_ = './mine.py'", r"mine\.py': its _base_ '\./mine\.py' leads back to itself"),
    ('_base_ = 5', r"mine\.py': _base_: found 5; the name of a config file"),
    ('model = dict(', 'SyntaxError: .*never closed'),
    ('x = 1 / 0', 'ZeroDivisionError: division by zero'),
    ('x = [].size', "AttributeError: 'list' object has no attribute 'size'"),
    ('x = 3', r"mine\.py': it has no model; a detector, model = dict\(type=...\), is expected"),
    ("model = 'FasterRCNN'", r"model is 'FasterRCNN'; a detector"),
    ("custom_imports = dict(imports=['no_such_module'])", 'ImportError: .*no_such_module'),
    ("_base_ = {student!r}; model = dict(type='FasterRCN')",
     r"mine\.py': model\.type: 'FasterRCN' is not registered; did you mean 'FasterRCNN'"),
    ("_base_ = {student!r}; model = dict(backbone=dict(type='ResNt'))",
     r"mine\.py': model\.backbone\.type: 'ResNt' is not reg.*'ResNet'"),
    ("_base_ = {student!r}; model = dict(backbone=dict(depht=18))", r"mine\.py.*'depht'"),
    ("_base_ = {student!r}; model = dict(bakbone=dict(depth=18))",
     r"mine\.py: model: unknown keys \['bakbone'\]|mine\.py': model: .*'bakbone'"),
    ("_base_ = {student!r}; model = dict(neck=dict(in_channels=[1, 2, 3, 4]))", 'FasterRCNN cannot be run on an image'),
    ("_base_ = {student!r}; modle = dict()", r"config key 'modle' is read by nothing; did you mean 'model'"),
]


@pytest.mark.parametrize('text, message', CONFIGS)
def test_a_students_config(text, message, place, capsys):
    path = place.file('mine.py', text.format_map(vars(place)) if '{student' in text else text)
    refused(f'{DISTILL} --student {path}'.format_map(vars(place)).split(), message, place, capsys)


def test_a_config_that_is_no_text(place, capsys):
    path = place.file('binary.py', b'\x80\x81\x00')
    refused(['plan', path], r"binary\.py' cannot be read: .*codec can't decode", place, capsys)


# -- the other commands
COMMANDS = [
    ('export {gone}.pth out --config {student}', r"checkpoint '.*gone\.pth' does not exist; give a file or URL"),
    ('export {coco} out --config {student}', r"checkpoint '.*coco' is a folder; give a file in it"),
    ('export {text} out --config {student}', r"text\.pth'.*not a file that torch\.save wrote"),
    ('export {other} {gone} --config {student}', r'gfl\.pth.* does not fit the configured network'),
    ('export {weights} {gone} --config {distil}', r'faster\.pth.* does not fit the configured network'),
    ('export {own} out --config {own}', r"own\.pth' is no config by its name"),
    ('export {own} out', r'--config: beside .*own\.pth there are \d+ configs \(\.py\); name the run\'s'),
    ('export {own} {file_there} --config {student}', r'OUT .*a_file: .* is no folder'),
    ('export {own} {gone} --config {student} --network second', r'--network second: model\.type is .FasterRCNN'),
    ('export {own} {gone} --config {student} --onnx --number 0', '--number 0: at least 1'),
    ('export {own} {gone} --config {student} --onnx', r"--images: the config's test set is not there"),
    ('export {own} {gone} --config {student} --onnx --images {gone}', r'--images .*gone: no \.jpg'),
    ('export {own} {gone} --config {student} --onnx --images {coco}/images --size 30 30',
     '--size 30 30: multiples of 32'),
    ('visualize {gone} --out {gone}', r"gone' is neither a work directory .* nor CONFIG:CHECKPOINT"),
    ('visualize {coco} --out {gone}', r"coco' must hold exactly one config"),
    ('visualize {student}:{gone}.pth --out {gone}', r"checkpoint '.*gone\.pth' does not exist"),
    ('visualize {student}:{own} --out {gone}', 'the test set was not found; say where the data is with --data-root'),
    ('visualize {student}:{own} --out {gone} --data-root {gone}', '--data-root .*gone: there is no such folder'),
    ('visualize {student}:{own} --out {file_there}', '--out .*a_file: .* is no folder'),
    ('visualize {student}:{own} --out {gone} --show all', "argument --show: invalid choice: 'all'"),
    ('compare {student}:{other} --no-latency', r'gfl\.pth.* does not fit the configured network'),
    ('compare {gone}.py:{own}', r"gone\.py' does not exist"),
    ('compare {student}:{own} --no-latency --eval', "data_root: the folder 'nowhere/' does not exist.*--data-root"),
    ('compare {student}:{own} --no-latency --data-root {gone}', '--data-root .*gone: there is no such folder'),
    ('compare {student}:{own} --no-latency --html {coco}', '--html .*coco: it is a folder; the name of a file'),
    ('compare {student}:{own} --no-latency --json {file_there}/a.json', r'--json .*a\.json: .*a_file is no folder'),
    ('compare {student}:{own} --frequency {gone}', "--frequency '.*gone' cannot be read as a COCO annotation file"),
    ('compare {student}:{own} --width 0', '--width 0: at least 20'),
    ('configs no_such_method', "configs 'no_such_method': no shipped config has that in its name; kd-det configs"),
    ('test {gone}.py {own}', r"gone\.py' does not exist"),
    ('test {own} {student}', r"own\.pth' is no config by its name"),
    ('test {student} {own}', "data_root: the folder 'nowhere/' does not exist.*--data-root"),
    ('test {student} {own} --data-root {coco} --classes disc disc', 'found .*no two alike'),
    ('test {student} {own} --data-root {coco} --classes no.txt', r"val\.json' has no \['no\.txt'\]; its categories"),
    ('test {student} {own} --out found.json', r'--out found\.json: MMDetection writes pickle files'),
    ('test {student} {own} --work-dir {file_there}', '--work-dir .*a_file: .* is no folder'),
    ('train {own}', r"own\.pth' is no config by its name"),
    ('train {student} --work-dir {gone}', "data_root: the folder 'nowhere/' does not exist"),
    ('train {student} --work-dir {file_there}/run', '--work-dir .*run: .*a_file is no folder'),
    ('train {student} --teacher {teacher} {weights} --work-dir {gone}',
     "--teacher: model.type 'FasterRCNN' has no teacher"),
    ('train {distil} --student {own} --work-dir {gone}', r"own\.pth' is no config by its name"),
    ('data prepare {coco} --out {file_there}', '--out .*a_file: .* is no folder'),
    ('data prepare {coco} --out {coco}/made', '--out .*made: it lies in the data folder .*coco; name a folder outside'),
]


@pytest.mark.parametrize('words, message', COMMANDS)
def test_other_commands(words, message, place, capsys, monkeypatch):
    monkeypatch.chdir(place.folder)
    refused(words.format_map(vars(place)).split(), message, place, capsys)


# -- what is on disk already
def test_a_folder_that_may_not_be_read_is_not_left_out(place, capsys, monkeypatch):
    """It would be a smaller data set, silently. Root may read everything, so the system's answer is made up."""
    real = os.scandir

    def scandir(path='.'):
        if str(path).endswith('images'):
            raise PermissionError(13, 'Permission denied', str(path))
        return real(path)
    monkeypatch.setattr(os, 'scandir', scandir)
    refused(['data', 'prepare', place.coco], r"the folder '.*coco/images' cannot be read \(Permission denied\); mend",
            place, capsys)


def test_a_place_without_permission(place, capsys, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda *_, **__: False)
    refused(DISTILL.format_map(vars(place)).split(), '--out .*gone: no permission to write into', place, capsys)


def test_an_out_of_other_settings_is_left_alone(place, capsys, monkeypatch):
    """The same command with another seed, method or data: nothing of the first is replaced without --overwrite."""
    monkeypatch.setattr(running, 'launch', lambda words, log, report: Path(log).write_text('it failed'))
    out = place.folder / 'made'
    words = f'{DISTILL} --epochs 1 --out {out}'.format_map(vars(place)).split()
    assert cli.main(words) == 1  # the first stage fails at once
    capsys.readouterr()
    for change, message in ((['--seed', '3'], r'\w+\.py is there with another content.*--overwrite'),
                            (['--method', 'hint'], r'distilled\.py is there with another content'),
                            (['--data', place.yolo], r'train\.json is there with another content')):
        refused([*words, *change], message, place, capsys)
    MMLogger._instance_dict.clear()
    shutil.rmtree(out)


def test_an_export_is_not_replaced(place, capsys):
    out = place.folder / 'exported'
    words = ['export', place.own, str(out), '--config', place.student]
    assert cli.main(words) == 0
    (out / 'faster_student.py').write_text('# edited')
    capsys.readouterr()
    refused(words, r'OUT: .*faster_student\.py is there already; name another folder, or give --overwrite', place,
            capsys)
    shutil.rmtree(out)
