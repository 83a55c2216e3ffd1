"""CoLAD as the command line trains it: both networks saved, resumed, averaged and evaluated."""
import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import build, run_tool
from dense_detectors import dense_cfg
from mmdet.models.detectors import SingleStageDetector
from mmengine.hooks import EMAHook

from kd_det.compat.checkpoint import load
from kd_det.engine import CoLADHook
from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.study.finished import read_finished

EMA = ("custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, update_buffers=True, "
       "priority=49)]")
BEST = "default_hooks['checkpoint'].update(save_best=['coco/bbox_mAP', 'peer/coco/bbox_mAP'], max_keep_ckpts=1)"


def colad(kind, **options):
    cfg = dense_cfg(kind)
    cfg.update(student_type=cfg.type, type='CoLAD', peer=dict(config=dense_cfg(kind, width=16).to_dict()), **options)
    return cfg


def metrics(folder):
    """Validation or test results of a run, oldest first."""
    lines = [line for log in sorted(folder.glob('*/vis_data/scalars.json')) + sorted(folder.glob('*/*.json'))
             for line in log.read_text().splitlines()]
    return [r for r in map(json.loads, lines) if 'coco/bbox_mAP' in r]


@pytest.mark.parametrize('kind', ['paa', 'rtmdet'])
def test_a_run_leaves_two_plain_checkpoints_and_resumes(kind, run_config, tmp_path):
    config = run_config(colad(kind), extra=f'\n{EMA if kind == "rtmdet" else ""}\n{BEST}\n')
    work = tmp_path / 'run'
    run_tool('train', config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1',
             'train_cfg.val_interval=1')
    first, second = build(dense_cfg(kind)), build(dense_cfg(kind, width=16))
    joint = load(str(work / 'epoch_1.pth'))
    own = load(str(work / 'epoch_1_peer.pth'))
    first.load_state_dict(joint['state_dict'], strict=True)
    second.load_state_dict(own['state_dict'], strict=True)
    assert all(torch.equal(own['state_dict'][k], v) for k, v in joint['kd_det']['peer'].items())
    assert own['meta']['dataset_meta'] == joint['meta']['dataset_meta']
    assert "type='CoLAD'" in joint['meta']['cfg'] and "type='CoLAD'" not in own['meta']['cfg']
    best = {path.stem for path in work.glob('best_*.pth')}
    assert best and {f'{stem.removesuffix("_peer")}{end}' for stem in best for end in ('', '_peer')} == best
    assert 0 <= joint['kd_det']['taught']['first'] <= joint['kd_det']['taught']['decisions']

    run_tool('train', config, '--work-dir', str(work), '--resume')
    later, theirs = load(str(work / 'epoch_2.pth')), load(str(work / 'epoch_2_peer.pth'))
    assert not (work / 'epoch_1.pth').exists() and not (work / 'epoch_1_peer.pth').exists()  # max_keep_ckpts=1
    # objects, or their levels, in each of the eight images: every epoch has as many
    assert later['kd_det']['taught']['decisions'] >= 1.5 * joint['kd_det']['taught']['decisions'] > 0
    assert read_finished(str(work)).first_teaches == pytest.approx(
        later['kd_det']['taught']['first'] / later['kd_det']['taught']['decisions'])
    assert not list(work.glob('*.part')) and later['meta']['epoch'] == 2
    for before, after in ((joint['state_dict'], later['state_dict']), (own['state_dict'], theirs['state_dict'])):
        assert any(not torch.equal(v, after[k]) for k, v in before.items() if v.is_floating_point())
    if kind == 'rtmdet':  # what is deployed is the average, of both networks; the weights that train lie beside it
        for average, deployed in ((later['ema_state_dict'], later['state_dict']),
                                  (later['kd_det']['peer_ema'], theirs['state_dict'])):
            assert {k.removeprefix('module.') for k in average if k != 'steps'} == set(deployed)
            assert any(not torch.equal(average[f'module.{k}'], v) for k, v in deployed.items() if v.is_floating_point())
            assert int(average['steps']) == 4  # two epochs of two steps: the resumed average went on
    records = [json.loads(line) for log in work.glob('*/vis_data/scalars.json')
               for line in log.read_text().splitlines()]
    steps = [r for r in records if 'loss' in r]
    for record in steps:
        names = [n for n in record if 'loss' in n and n != 'loss']
        assert record['loss'] == pytest.approx(sum(record[n] for n in names), rel=1e-3)
        assert 'peer.loss_cls' in names and 0 <= record['first_teaches'] <= 1
        assert 0 <= record['positives_iou'] < 1 and 0 < record['objects_differing'] <= 1  # the networks are not one

    # either network, from the file of both and from its own, as validation saw it
    seen, detections = metrics(work)[-1], {}
    both = (('first', 'epoch_2', ''), ('second', 'epoch_2', 'peer/'), ('second', 'epoch_2_peer', 'peer/'))
    for network, name, prefix in both if kind == 'paa' else both[1:2]:
        out = tmp_path / f'{network}_{name}'
        run_tool('test', config, str(work / f'{name}.pth'), '--network', network, '--work-dir', str(out), '--out',
                 str(tmp_path / 'out.pkl'))
        assert metrics(out)[-1]['coco/bbox_mAP'] == seen[f'{prefix}coco/bbox_mAP']
        detections[network, name] = [r['pred_instances']['scores'] for r in
                                     pickle.loads((tmp_path / 'out.pkl').read_bytes())]
    if kind == 'paa':  # the figures of four steps are near zero and may be alike, the scores are not
        first_found, joint_found, own_found = detections.values()
        assert all(torch.equal(a, b) for a, b in zip(joint_found, own_found))
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first_found, joint_found))


def test_the_peers_average_begins_with_rank_0s_weights(monkeypatch):
    """Ranks may draw the peer's weights apart; the copy that is averaged must be of the synchronised ones."""
    from kd_det.training_only import TrainingOnly
    model = build(colad('rtmdet'))

    def from_rank_0(module):
        for tensor in module.own_state_dict().values():
            tensor.fill_(2)

    monkeypatch.setattr(TrainingOnly, 'synchronise', from_rank_0)
    average = EMAHook(momentum=0.1)
    hook = CoLADHook()
    hook.before_run(SimpleNamespace(model=model, hooks=[average, hook], save_checkpoint=lambda *_, **__: None))
    assert all((p == 2).all() for p in model.peer.parameters())
    assert all((p == 2).all() for p in hook._twin.ema_model.module.parameters())
    assert not all((p == 2).all() for p in average.ema_model.module.parameters())


def test_validation_runs_both_networks_on_the_same_images(run_config, tmp_path, monkeypatch):
    predict, seen = SingleStageDetector.predict, []

    def spy(self, inputs, *args, **kwargs):
        seen.append((type(self).__name__, float(inputs.double().sum())))
        return predict(self, inputs, *args, **kwargs)
    monkeypatch.setattr(SingleStageDetector, 'predict', spy)
    run_tool('train', run_config(colad('paa')), '--work-dir', str(tmp_path / 'run'), '--cfg-options',
             'train_cfg.max_epochs=1', 'train_cfg.val_interval=1')
    first, second = ([image for kind, image in seen if kind.startswith('CoLAD') == of_first]
                     for of_first in (True, False))
    assert first == second and len(first) + len(second) == len(seen) > 0


def test_an_interruption_leaves_both_networks(run_config, tmp_path, monkeypatch):
    hook = CoLADHook.after_train_iter

    def interrupt(self, runner, *args, **kwargs):
        hook(self, runner, *args, **kwargs)
        signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(CoLADHook, 'after_train_iter', interrupt)
    work = tmp_path / 'run'
    with pytest.raises(SystemExit):
        run_tool('train', run_config(colad('paa')), '--work-dir', str(work))
    build(dense_cfg('paa')).load_state_dict(load(str(work / 'interrupted.pth'))['state_dict'], strict=True)
    build(dense_cfg('paa', width=16)).load_state_dict(load(str(work / 'interrupted_peer.pth'))['state_dict'],
                                                      strict=True)
    assert not (work / 'last_checkpoint').exists()


def test_network_asks_for_what_is_there(run_config, tmp_path):
    config, plain = run_config(colad('paa')), run_config(dense_cfg('paa'), 'plain.py')
    from mmengine.runner import save_checkpoint
    path = str(tmp_path / 'a_peer.pth')
    save_checkpoint(dict(meta=dict(kd_det_network='second'), state_dict=build(dense_cfg('paa')).state_dict()), path)
    with pytest.raises(CheckpointMismatch, match="second network's own; evaluate it with --network second"):
        run_tool('test', config, path, '--work-dir', str(tmp_path))
    joint = dict(meta=dict(cfg="model = dict(type='CoLAD')"), state_dict=build(dense_cfg('paa')).state_dict())
    save_checkpoint(joint, str(tmp_path / 'stripped.pth'))
    with pytest.raises(CheckpointMismatch, match='was taken out'):
        run_tool('test', config, str(tmp_path / 'stripped.pth'), '--network', 'second', '--work-dir', str(tmp_path))
    with pytest.raises(ConfigError, match='two networks, whose state_dict is the first'):
        build({**colad('paa'),
               'peer': dict(config=dense_cfg('paa').to_dict(), checkpoint=str(tmp_path / 'stripped.pth'))})
    with pytest.raises(ConfigError, match=r'--network second: model\.type is'):
        run_tool('test', plain, path, '--network', 'second', '--work-dir', str(tmp_path))


RANKS = '''
import copy, json, os, sys
sys.path.insert(0, {tests!r})
import conftest, torch
from conftest import build, make_batch, total
from dense_detectors import dense_cfg
from mmengine.model import MMDistributedDataParallel


def gradients(forward, model, rank):
    """Of one step on the rank's own images, from its own random state."""
    torch.manual_seed(100 + rank)
    batch = make_batch(sizes=((64, 96),) * 2, objects=(2 + rank, 1), seed=rank)
    data = model.data_preprocessor(batch, True)
    losses = forward(**data, mode='loss')
    total(losses).backward()
    gradients = {{n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}}
    return gradients, float(losses['first_teaches'])


def work(rank, folder):
    cfg = dense_cfg('paa')
    cfg.update(student_type=cfg.type, type='CoLAD', peer=dict(config=dense_cfg('paa', width=16)),
               criterion=dict(type='RandomCriterion'))
    model = build(cfg).eval()
    alone, taught = gradients(model, model, rank)
    model.zero_grad()
    torch.distributed.init_process_group('gloo', init_method='file://' + folder + '/store', rank=rank, world_size=2)
    wrapped = MMDistributedDataParallel(model, broadcast_buffers=False)
    both, again = gradients(wrapped, model, rank)
    assert taught == again, (taught, again)
    worst = 0.
    for name, value in alone.items():
        torch.distributed.all_reduce(value)
        worst = max(worst, float((both[name] - value / 2).abs().max() / (value.abs().max() + 1e-6)))
    with open(f'{{folder}}/{{rank}}.json', 'w') as file:
        json.dump(dict(worst=worst, names=sorted(both), teaches=taught), file)
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    children = []
    for rank in (0, 1):  # forked: the imports are paid for once
        child = os.fork()
        if child == 0:
            try:
                work(rank, sys.argv[1])
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
'''


def test_two_ranks_decide_for_their_own_images_and_average_gradients(tmp_path):
    script = tmp_path / 'ranks.py'
    script.write_text(RANKS.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=600,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    first, second = (json.loads((tmp_path / f'{rank}.json').read_text()) for rank in (0, 1))
    assert first['names'] == second['names'] and any('peer_network' in name for name in first['names'])
    assert first['teaches'] != second['teaches']  # other images, other decisions
    assert max(first['worst'], second['worst']) < 1e-4
