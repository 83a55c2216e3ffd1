"""CrossKD with two processes: unequal positives, a rank without objects, equal normalisers, averaged gradients."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

RANKS = '''
import json
import os
import sys

sys.path[:0] = [{tests!r}]
import torch
import torch.distributed
from conftest import build, make_batch, total
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict
from mmengine.model import MMDistributedDataParallel

from kd_det.heads import dense_targets
from kd_det.terms import cross_head

CALLS = []


def heard(reduce_mean):
    """reduce_mean, with what goes in and what comes out."""
    def listening(value):
        CALLS.append([float(value), float(found := reduce_mean(value))])
        return found
    return listening


cross_head.reduce_mean, dense_targets.reduce_mean = heard(cross_head.reduce_mean), heard(dense_targets.reduce_mean)


def step(model, forward, rank):
    CALLS.clear()
    batch = make_batch(sizes=((64, 96),) * 2, objects=((3, 2), (0, 0))[rank], seed=rank)
    losses = forward(**model.data_preprocessor(batch, True), mode='loss')
    total(losses).backward()
    return {{n: float(v) for n, v in losses.items() if '_cross' in n}}, [list(call) for call in CALLS]


def work(kind, rank, folder):
    cfg = dense_cfg(kind, channels=8, stacked_convs=2)
    wide = dense_cfg(kind, channels=16, stacked_convs=2)
    cfg.update(student_type=cfg.type, type='Distiller', teacher=dict(config=wide, checkpoint=folder + f'/{{kind}}.pth'),
               terms=[dict(type='CrossHead')])
    model = build(cfg).eval()  # batch norms as they are: what differs between ranks is the term's
    alone, before = step(model, model, rank)
    model.zero_grad()
    store = 'file://' + folder + f'/{{kind}}_store'
    torch.distributed.init_process_group('gloo', init_method=store, rank=rank, world_size=2)
    both, after = step(model, MMDistributedDataParallel(model, broadcast_buffers=False), rank)
    gradients = {{n: float(p.grad.double().abs().sum()) for n, p in model.named_parameters() if p.grad is not None}}
    with open(f'{{folder}}/{{kind}}{{rank}}.json', 'w') as file:
        json.dump(dict(alone=alone, before=before, both=both, after=after, gradients=gradients), file)
    torch.distributed.destroy_process_group()


if __name__ == '__main__':
    kinds = ('atss', 'fcos')
    for kind in kinds:
        torch.save(dict(state_dict=build(dense_cfg(kind, channels=16, stacked_convs=2), 7).state_dict()),
                   sys.argv[1] + f'/{{kind}}.pth')
    children = []
    for rank in (0, 1):  # forked: the imports are paid for once
        child = os.fork()
        if child == 0:
            try:
                for kind in kinds:
                    work(kind, rank, sys.argv[1])
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
'''


@pytest.fixture(scope='module')
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp('ranks')
    script = folder / 'ranks.py'
    script.write_text(RANKS.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True, timeout=600,
                          env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return lambda kind: [json.loads((folder / f'{kind}{rank}.json').read_text()) for rank in (0, 1)]


@pytest.mark.parametrize('kind', ['atss', 'fcos'])
def test_every_rank_divides_by_the_same(kind, ranks):
    first, second = ranks(kind)
    assert len(first['after']) == len(second['after']) == 2  # positives; weights or centerness
    for one, other in zip(first['after'], second['after']):
        assert one[1] == other[1] == pytest.approx((one[0] + other[0]) / 2), 'the mean over ranks'
    assert first['after'][0][0] > 2 and second['after'][0][0] == 0  # a rank without objects
    least = [1, 1 if kind == 'fcos' else 0]
    for rank in (first, second):
        normalisers = dict(loss_cls_cross=0, loss_bbox_cross=1, loss_centerness_cross=0)
        for name, value in rank['both'].items():
            place = normalisers[name]
            local, joint = (max(rank[when][place][1], least[place]) for when in ('before', 'after'))
            assert value == pytest.approx(rank['alone'][name] * local / joint, rel=1e-4), name
            assert value > 0 or (name == 'loss_centerness_cross' and rank is second)


@pytest.mark.parametrize('kind', ['atss', 'fcos'])
def test_gradients_are_averaged_and_the_mappers_take_part_on_both(kind, ranks):
    first, second = ranks(kind)
    assert first['gradients'] == second['gradients']
    assert all(value < float('inf') for value in first['gradients'].values())
    for branch in ('cls', 'bbox'):
        assert first['gradients'][f'terms.0.adapters.{branch}.layers.0.weight'] > 0
