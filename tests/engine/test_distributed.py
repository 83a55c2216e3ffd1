"""tools/dist_train.sh and dist_test.sh with two processes, as torchrun starts them; on CPU cores where there is no GPU.
"""
import json
import os
import pickle
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from conftest import RUN_CONFIG, TOOLS, build, faster_rcnn_cfg, run_script, run_tool, script_call
from dense_detectors import dense_cfg
from mmengine.config import Config
from test_distill_run import distilled_cfg

from kd_det.compat.checkpoint import load
from kd_det.engine.distributed import TORCHRUN_VARIABLES, prepare_launcher
from kd_det.errors import ConfigError
from kd_det.files import damage

WITNESS = '''
import atexit
import glob
import json
import os
import signal
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Witness(Hook):
    """Every rank writes what it trained on, what it holds, and whether its gradients were averaged."""

    def before_train(self, runner):
        self.images, self.adapters = [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.images += [sample.img_id for sample in data_batch['data_samples']]

    def after_train(self, runner):
        model = runner.model.module
        sums = {name: float(p.detach().double().abs().sum()) for name, p in model.named_parameters()}
        if hasattr(model, 'teacher'):
            sums.update({'teacher.' + name: float(p.double().abs().sum())
                         for name, p in model.teacher.model.named_parameters()})
        with open(f'{runner.work_dir}/rank{get_rank()}.json', 'w') as file:
            json.dump(dict(wrapper=type(runner.model).__name__, images=self.images, sums=sums), file)
        atexit.register(threads_at_exit, f'{runner.work_dir}/threads{get_rank()}.json')


def threads_at_exit(path):
    with open(path, 'w') as file:
        json.dump([open(name).read().strip() for name in glob.glob('/proc/self/task/*/comm')], file)


@HOOKS.register_module()
class Stopper(Hook):
    """A signal that only the second rank receives, and when each rank ends."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with open(f'{runner.work_dir}/steps{get_rank()}', 'a') as file:
            file.write('step ')
        if get_rank() == 1 and runner.iter == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@HOOKS.register_module()
class Pids(Hook):
    """Which process is which rank, once training runs."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            with open(f'{runner.work_dir}/pid{get_rank()}', 'w') as file:
                file.write(str(os.getpid()))
'''


@pytest.fixture(scope='module')
def trained_by_two(teacher_checkpoint, tiny_coco, tmp_path_factory):
    folder = tmp_path_factory.mktemp('two')
    (folder / 'witness_hook.py').write_text(WITNESS)
    config = folder / 'config.py'
    text = RUN_CONFIG.format(root=f'{tiny_coco}/', model=distilled_cfg(teacher_checkpoint).to_dict())
    config.write_text(text + "\ncustom_imports = dict(imports=['kd_det', 'witness_hook'])\n"
                             "custom_hooks = [dict(type='Witness')]\nlog_level = 'INFO'\n")
    output = run_script('dist_train.sh', str(config), '2', '--work-dir', str(folder / 'run'), path=str(folder))
    return config, folder, output


def test_two_ranks_train_one_student(trained_by_two):
    _, folder, output = trained_by_two
    first, second = (json.loads((folder / 'run' / f'rank{rank}.json').read_text()) for rank in (0, 1))
    assert first['wrapper'] == 'MMDistributedDataParallel'
    assert first['sums'] == second['sums'], 'the ranks hold different weights'
    assert any('adapters' in name for name in first['sums'])
    for epoch in (0, 1):  # 8 images, batches of 4: one step of each rank makes an epoch
        shares = [rank['images'][4 * epoch:4 * epoch + 4] for rank in (first, second)]
        assert sorted(shares[0] + shares[1]) == list(range(8)), 'each rank takes its share of the images'
    assert output.count('Distillation plan') == 1, 'only rank 0 speaks'
    assert output.count('train_dataloader.dataset: 8 images') == 1, 'only rank 0 looks at the data'


@pytest.mark.skipif(not os.path.isdir('/proc/self/task'), reason='threads are listed by Linux alone')
@pytest.mark.parametrize('rank', [0, 1])
def test_no_thread_of_gloo_is_left_at_exit(trained_by_two, rank):
    """One that lets go of its last tensor while Python ends would abort a rank whose work is done."""
    threads = json.loads((trained_by_two[1] / 'run' / f'threads{rank}.json').read_text())
    assert threads and not [name for name in threads if 'gloo' in name]


def test_checkpoint_of_two_ranks_is_the_plain_students(trained_by_two):
    _, folder, _ = trained_by_two
    checkpoint = load(str(folder / 'run' / 'epoch_2.pth'))
    build(faster_rcnn_cfg()).load_state_dict(checkpoint['state_dict'], strict=True)
    held = json.loads((folder / 'run' / 'rank0.json').read_text())['sums']
    for name, value in checkpoint['kd_det']['terms'].items():
        assert any(abs(held[n] - float(value.double().abs().sum())) < 1e-9 for n in held if 'adapters' in n), name


def test_two_ranks_evaluate_as_one(trained_by_two, tmp_path, monkeypatch):
    config, folder, _ = trained_by_two
    checkpoint = str(folder / 'run' / 'epoch_2.pth')
    run_script('dist_test.sh', str(config), checkpoint, '2', '--work-dir', str(tmp_path / 'two'), '--out',
               str(tmp_path / 'two.pkl'), path=str(folder))
    monkeypatch.syspath_prepend(str(folder))
    run_tool('test', str(config), checkpoint, '--work-dir', str(tmp_path / 'one'), '--out', str(tmp_path / 'one.pkl'))
    one, two = (json.loads(next(tmp_path.glob(f'{n}/*/*.json')).read_text().splitlines()[-1]) for n in ('one', 'two'))
    one, two = ({k: v for k, v in figures.items() if k.startswith('coco')} for figures in (one, two))
    assert one == two
    ours, theirs = (pickle.loads((tmp_path / f'{n}.pkl').read_bytes()) for n in ('one', 'two'))
    assert [r['img_id'] for r in ours] == [r['img_id'] for r in theirs]
    assert all(torch.equal(a['pred_instances']['scores'], b['pred_instances']['scores']) for a, b in zip(ours, theirs))


def test_two_ranks_resume(trained_by_two):
    config, folder, _ = trained_by_two
    output = run_script('dist_train.sh', str(config), '2', '--work-dir', str(folder / 'run'), '--resume',
                        '--cfg-options', 'train_cfg.max_epochs=3', path=str(folder))
    assert 'resumed epoch: 2' in output
    assert load(str(folder / 'run' / 'epoch_3.pth'))['meta']['epoch'] == 3


def test_two_ranks_train_one_colad_pair(tiny_coco, tmp_path):
    """Also where every rank draws its own weights: both networks begin with rank 0's."""
    (tmp_path / 'witness_hook.py').write_text(WITNESS)
    config = tmp_path / 'colad.py'
    cfg = dense_cfg('rtmdet')
    cfg.update(student_type=cfg.type, type='CoLAD', peer=dict(config=dense_cfg('rtmdet', width=16).to_dict()))
    config.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=cfg.to_dict())
                      + "\ncustom_imports = dict(imports=['kd_det', 'witness_hook'])\n"
                        "custom_hooks = [dict(type='Witness')]\nlog_level = 'INFO'\n"
                        "randomness = dict(seed=0, diff_rank_seed=True)\n")
    output = run_script('dist_train.sh', str(config), '2', '--work-dir', str(tmp_path / 'run'), path=str(tmp_path))
    first, second = (json.loads((tmp_path / 'run' / f'rank{rank}.json').read_text()) for rank in (0, 1))
    assert first['sums'] == second['sums'] and any('peer_network' in name for name in first['sums'])
    own = load(str(tmp_path / 'run' / 'epoch_2_peer.pth'))['state_dict']
    build(dense_cfg('rtmdet', width=16)).load_state_dict(own, strict=True)
    assert 'peer/coco/bbox_mAP' in output
    share, decisions = re.findall(r"took ([\d.]+) % of this epoch's (\d+) decisions", output)[0]
    of_all = load(str(tmp_path / 'run' / 'epoch_2.pth'))['kd_det']['taught']
    assert 0 <= float(share) <= 100 and of_all['decisions'] > int(decisions)


def test_a_signal_to_one_rank_stops_both_after_the_same_step(trained_by_two):
    config, folder, _ = trained_by_two
    run, stopping = folder / 'interrupted', folder / 'stopping.py'
    stopping.write_text(f"_base_ = {str(config)!r}\ncustom_hooks = [dict(type='Stopper')]\n"
                        "train_cfg = dict(max_epochs=6)\n")
    output = run_script('dist_train.sh', str(stopping), '2', '--work-dir', str(run), path=str(folder), succeeds=False)
    assert 'interrupted at iteration 2' in output
    assert (run / 'steps0').read_text() == (run / 'steps1').read_text() == 'step step '
    build(faster_rcnn_cfg()).load_state_dict(load(str(run / 'interrupted.pth'))['state_dict'], strict=True)


def ended(pid: int, seconds: float) -> bool:
    """Whether a process is gone, or a zombie that nobody has asked for, within the time."""
    for _ in range(int(seconds * 4)):
        try:
            if Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] == 'Z':
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.25)
    return False


@pytest.mark.slow  # waits for processes to end
@pytest.mark.parametrize('victim', ['rank', 'launcher'])
def test_killed_with_sigkill_nobody_trains_on_and_the_run_resumes(victim, trained_by_two):
    config, folder, _ = trained_by_two
    run, endless = folder / f'killed_{victim}', folder / 'endless.py'
    endless.write_text(f"_base_ = {str(config)!r}\ncustom_hooks = [dict(type='Pids')]\n"
                       "train_cfg = dict(max_epochs=1000, val_interval=2000)\n"
                       "default_hooks = dict(checkpoint=dict(max_keep_ckpts=2, save_best=None))\n")
    with open(folder / f'{victim}.log', 'w') as log:
        call = script_call('dist_train.sh', (str(endless), '2', '--work-dir', str(run)), str(folder))
        launcher = subprocess.Popen(**call, stdout=log, stderr=log)
    try:
        for _ in range(1200):
            if all((run / f'pid{rank}').exists() and (run / f'pid{rank}').read_text() for rank in (0, 1)):
                break
            assert launcher.poll() is None, (folder / f'{victim}.log').read_text()[-3000:]
            time.sleep(0.25)
        ranks = [int((run / f'pid{rank}').read_text()) for rank in (0, 1)]
        if victim == 'rank':
            os.kill(ranks[1], signal.SIGKILL)
            assert launcher.wait(60) != 0
            assert ended(ranks[0], 1), 'the launcher is gone and rank 0 is not'
            assert 'exitcode  : -9' in (folder / f'{victim}.log').read_text()
        else:
            launcher.kill()
            assert all(ended(pid, 60) for pid in ranks), 'a rank trains on without its launcher'
    finally:
        launcher.kill()
        launcher.wait()
    newest = max(load(str(path))['meta']['epoch'] for path in run.glob('epoch_*.pth') if damage(path) is None)
    more = f'train_cfg.max_epochs={newest + 2}'
    output = run_script('dist_train.sh', str(endless), '2', '--work-dir', str(run), '--resume', '--cfg-options', more,
                        path=str(folder))
    assert 'resumed epoch: ' in output and (run / f'epoch_{newest + 2}.pth').exists()


@pytest.mark.slow  # a shipped config from the data on
def test_two_ranks_train_a_shipped_config_on_digits(tmp_path):
    from kd_det.datasets.make_digits import make
    make(str(tmp_path / 'digits'), train=12, dev=2, val=4, size=(160, 120))
    config = TOOLS.parent / 'configs/colad/paa_r18-w16_fpn-c32_6e_digits-160x120_colad-r18-w8.py'
    output = run_script('dist_train.sh', str(config), '2', '--work-dir', str(tmp_path / 'run'), '--data-root',
                        str(tmp_path / 'digits'), '--cfg-options', 'train_cfg.max_epochs=1',
                        'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
                        'val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False')
    assert (tmp_path / 'run' / 'epoch_1.pth').exists() and (tmp_path / 'run' / 'epoch_1_peer.pth').exists()
    assert output.count('Distillation plan') == 1 and 'coco/bbox_mAP' in output


def test_launcher_outside_torchrun_is_refused(monkeypatch):
    for name in TORCHRUN_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r'start with torchrun .*-m kd_det train'):
        prepare_launcher(Config(dict()), 'pytorch')


@pytest.mark.skipif(torch.cuda.is_available(), reason='slurm and mpi are refused only without a GPU')
@pytest.mark.parametrize('launcher', ['slurm', 'mpi'])
def test_launchers_that_need_a_gpu_are_refused_without_one(launcher):
    with pytest.raises(ConfigError, match=f'--launcher {launcher}'):
        prepare_launcher(Config(dict()), launcher)


def test_no_launcher_changes_nothing():
    cfg = Config(dict(model=dict(type='FasterRCNN')))
    prepare_launcher(cfg, 'none')
    assert cfg.launcher == 'none' and 'model_wrapper_cfg' not in cfg
