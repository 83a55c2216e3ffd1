"""The old checkpoint goes when the new one is whole; a damaged newest one does not stop a resume."""
import logging
import os

import pytest
import torch
from conftest import faster_rcnn_cfg, run_tool
from mmengine.config import Config
from mmengine.fileio.backends import LocalBackend

from kd_det import files
from kd_det.engine.checkpoint_files import latest_whole, write_files_whole
from kd_det.errors import CheckpointMismatch


def checkpoint(path, **content):
    torch.save(dict(meta=dict(epoch=1, iter=4), optimizer={}, state_dict=dict(w=torch.ones(300))) | content, path)
    return str(path)


def test_damaged_and_incomplete_files_are_skipped(tmp_path):
    assert latest_whole(str(tmp_path / 'none')) is None
    good = checkpoint(tmp_path / 'epoch_1.pth')
    cut = checkpoint(tmp_path / 'epoch_2.pth')
    os.truncate(cut, 1000)
    for time, path in enumerate((good, cut)):
        os.utime(path, (time, time))
    (tmp_path / 'last_checkpoint').write_text(cut)
    checkpoint(tmp_path / 'best_bbox_epoch_9.pth')
    checkpoint(tmp_path / 'epoch_2_peer.pth')
    assert latest_whole(str(tmp_path)) == good
    os.remove(good)
    with pytest.raises(CheckpointMismatch, match=r'epoch_2\.pth: it was cut off'):
        latest_whole(str(tmp_path))


def test_a_config_that_is_dumped_appears_whole(tmp_path, monkeypatch):
    before = Config.dump, LocalBackend.put
    write_files_whole()
    try:
        path = tmp_path / 'config.py'
        Config(dict(a=1)).dump(path)
        one = Config(dict(a=1)).pretty_text
        assert path.read_text() == one
        monkeypatch.setattr(files.os, 'replace', lambda source, target: os.abort)
        Config(dict(a=2)).dump(str(path))
        assert path.read_text() == one, 'it is not written in place'
        assert Config(dict(a=2)).dump() == Config(dict(a=2)).pretty_text
    finally:
        Config.dump, LocalBackend.put = before


def test_with_one_kept_a_full_disk_leaves_the_last_good_checkpoint(run_config, tmp_path, monkeypatch):
    config = run_config(faster_rcnn_cfg(),
                        extra="default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best=None)\n")
    work = tmp_path / 'run'
    replace = os.replace

    def full(source, target):
        if str(target).endswith('epoch_2.pth'):
            raise OSError(28, 'No space left on device')
        replace(source, target)
    monkeypatch.setattr(files.os, 'replace', full)
    with pytest.raises(OSError, match=r'No space left on device: could not write .*epoch_2.pth'):
        run_tool('train', config, '--work-dir', str(work))
    assert sorted(p.name for p in work.glob('*.pth*')) == ['epoch_1.pth']
    assert (work / 'last_checkpoint').read_text() == latest_whole(str(work)) == str(work / 'epoch_1.pth')
    monkeypatch.undo()
    logging.disable(logging.NOTSET)
    run_tool('train', config, '--work-dir', str(work), '--resume')
    assert [p.name for p in work.glob('*.pth')] == ['epoch_2.pth']
