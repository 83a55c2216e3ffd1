"""Killed with SIGKILL at a random moment, or while a checkpoint is being written, a run goes on and ends bit-equal."""
import multiprocessing
import os
import random
import signal
import time

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool, save_checkpoint
from dense_detectors import dense_cfg
from test_distill_run import distilled_cfg
from test_repeatable import INNER, assert_same

EXTRA = INNER + "default_hooks['checkpoint'].update(max_keep_ckpts=1)\n"
QUICK = "train_cfg.update(max_epochs=1)\nval_dataloader = val_cfg = val_evaluator = None\n"
FRESH = multiprocessing.get_context('forkserver' if torch.cuda.is_available() else 'fork')  # no fork of a started CUDA


def train(config: str, work: str, write: int = 0) -> None:
    """One process's training; it kills itself when file number ``write`` of the run is written to one half."""
    if write:
        fsync, count = os.fsync, 0

        def kill(handle):
            nonlocal count
            count += not os.path.isdir(f'/proc/self/fd/{handle}')
            if count == write:
                os.ftruncate(handle, os.fstat(handle).st_size // 2)
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(handle)
        os.fsync = kill
    run_tool('train', config, '--work-dir', work, '--resume')


def killed(config: str, work: str, delay: float = 0, write: int = 0) -> bool:
    """Whether the run was killed before its end: after ``delay`` seconds, or by itself."""
    process = FRESH.Process(target=train, args=(config, work, write))
    process.start()
    process.join(delay or None)
    process.kill()  # nothing is sent to one that has ended
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    return process.exitcode != 0


def check(config: str, folder, moments: int, last: str) -> None:
    """Kill at ``moments`` moments, half of them while a file is being written; each run is then resumed to its end."""
    begin = time.monotonic()
    assert not killed(config, str(folder / 'whole'))
    lasts, draw = time.monotonic() - begin, random.Random()
    for moment in range(moments):
        work = folder / f'killed{moment}'
        how = dict(write=draw.randint(2, 6)) if moment % 2 else dict(delay=draw.uniform(0.1, 0.9) * lasts)
        print(f'moment {moment}: {how} of {lasts:.1f} s')  # shown where the test fails
        was_killed = killed(config, str(work), **how)
        assert was_killed or 'delay' in how, 'the file was not written'
        if was_killed:
            print('left:', sorted(path.name for path in work.glob('*')) if work.exists() else 'nothing')
            assert not killed(config, str(work))
        assert_same(folder / 'whole' / last, work / last)
        kept = [path.name for path in work.glob('iter_*.pth') if not path.name.endswith('_peer.pth')]
        assert len(kept) <= 2, 'a kill between writing the new and removing the old leaves that one old file, no more'


def test_a_plain_detector(run_config, tmp_path):
    check(run_config(faster_rcnn_cfg(), extra=EXTRA + QUICK), tmp_path, 2, 'iter_4.pth')


@pytest.mark.slow
@pytest.mark.parametrize('method', ['plain', 'faster_rcnn', 'lad', 'colad'])
def test_every_method_at_ten_moments(method, run_config, teacher_checkpoint, tmp_path):
    if method == 'plain':
        cfg = dense_cfg('paa')
    elif method == 'faster_rcnn':
        cfg = distilled_cfg(teacher_checkpoint)
    else:
        cfg, wide = dense_cfg('paa'), dense_cfg('paa', width=16)
        cfg.update(student_type=cfg.type, **(
            dict(type='CoLAD', peer=dict(config=wide.to_dict())) if method == 'colad' else
            dict(type='LADDistiller', soft_label=dict(), teacher=dict(
                config=wide.to_dict(), checkpoint=save_checkpoint(build(wide, 7), tmp_path / 'teacher.pth')))))
    check(run_config(cfg, extra=EXTRA), tmp_path, 10, 'iter_8.pth')
