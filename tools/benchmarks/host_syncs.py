"""How often a training step makes the host wait for the device: counted on the CPU, plain against distilled.

A device works through a queue. Whatever reads a tensor's value or lets a result's shape depend on values (``.item()``,
``nonzero``, a boolean index, ``unique``, NMS) makes the host wait until the queue is empty. Each such call is an
operator that PyTorch dispatches, on the CPU too; a ``TorchDispatchMode`` counts them in ``loss`` and ``parse_losses``.
``tolist`` and ``cpu`` do not come that far on the CPU: a ``TorchFunctionMode`` counts them, one wait each. Copies to
the device, which may wait too, are not counted, nor is ``tensor[mask] = number``, a masked fill, which waits for
nothing.

Scenes are generated like BCCD's (320x240 pixels, 8 to 16 objects of three classes), weights are random, counts are of
one step after a first one that is not counted; they hang on the data a little, so that several batches are averaged.
The mixture fit asks as rarely as it does on an accelerator.

    python tools/benchmarks/host_syncs.py                    # the pairs below
    python tools/benchmarks/host_syncs.py --where paa/lad    # which lines of the project wait how often in this case
"""
import argparse
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import first_steps
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from timing import write_json
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from kd_det.assignment import gmm

ROOT = Path(__file__).resolve().parents[2]
PAIRS = (('faster_rcnn/base', 'faster_rcnn/all'), ('paa/base', 'paa/lad'), ('paa/base', 'paa/lad-batched'),
         ('paa/base', 'paa/solad'), ('rtmdet/base', 'rtmdet/lad'))
SIZE, OBJECTS = (240, 320), (8, 12, 16, 10)
# each waits on CUDA: for a value, or for how large its result is
WAITING = {'aten::_local_scalar_dense', 'aten::nonzero', 'aten::_unique2', 'aten::unique_dim',
           'aten::unique_consecutive', 'aten::masked_select', 'aten::equal', 'aten::bincount', 'torchvision::nms',
           'kd_det::nms'}
INDEXING = {'aten::index', 'aten::index_put', 'aten::index_put_', 'aten::_index_put_impl_'}


class _Copies(TorchFunctionMode):
    """Tells ``waits`` of whole tensors that the host asks for."""

    def __init__(self, waits: 'HostWaits') -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        if func in (torch.Tensor.tolist, torch.Tensor.cpu):
            self.waits.note(f'Tensor.{func.__name__}')
        return func(*args, **(kwargs or {}))


class HostWaits(TorchDispatchMode):
    """Counts the operators that wait, by the operator's name; ``where`` counts them by the project's line that asked.
    """

    def __init__(self, where: bool = False) -> None:
        super().__init__()
        self.counts: Counter = Counter()
        self.lines: Counter | None = Counter() if where else None
        self._copies = _Copies(self)

    def __enter__(self) -> 'HostWaits':
        self._copies.__enter__()
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._copies.__exit__(*error)

    def note(self, name: str) -> None:
        self.counts[name] += 1
        if self.lines is not None:
            self.lines[(_asker(), name)] += 1

    def __torch_dispatch__(self, func: Callable, types: tuple, args: tuple = (), kwargs: dict | None = None) -> object:
        name = func._schema.name
        if name in WAITING or (name in INDEXING and _by_mask(name, args)):
            self.note(name)
        return func(*args, **(kwargs or {}))

    def total(self) -> int:
        return sum(self.counts.values())


def _by_mask(name: str, args: tuple) -> bool:
    masked = any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    fills = name != 'aten::index' and args[2].numel() == 1 and not (len(args) > 3 and args[3])
    return masked and not fills


def _asker() -> str:
    """The innermost line of the project, and the innermost of all."""
    frames = [f for f in traceback.extract_stack() if 'torch/' not in f.filename and f.filename != __file__]
    ours = [f for f in frames if '/kd_det/' in f.filename]
    shown = [frames[-1]] if not ours or ours[-1] is frames[-1] else [ours[-1], frames[-1]]
    return ' > '.join(f'{"/".join(Path(f.filename).parts[-2:])}:{f.lineno} {f.name}' for f in shown)


def scene(seed: int) -> dict:
    """A batch of four images as a data loader delivers it, with rectangles of BCCD's sizes and numbers."""
    rng = np.random.default_rng(seed)
    inputs, samples = [], []
    for index, count in enumerate(OBJECTS):
        view = rng.integers(0, 80, (3, *SIZE)).astype(np.uint8)
        corners = np.stack([rng.integers(0, side - 40, count) for side in SIZE[::-1]], -1)
        ends = corners + rng.integers(16, 80, (count, 2))
        boxes = np.concatenate([corners, ends], -1).clip(0, np.tile(SIZE[::-1], 2))
        labels = rng.integers(0, first_steps.NUM_CLASSES, count)
        for (x1, y1, x2, y2), label in zip(boxes, labels):
            view[label, y1:y2, x1:x2] = 250
        sample = DetDataSample(metainfo=dict(img_id=index, img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(bboxes=torch.from_numpy(boxes).float(), labels=torch.from_numpy(labels))
        sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        inputs.append(torch.from_numpy(view))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def count(model: nn.Module, batches: int, where: bool = False) -> HostWaits:
    """The waits of ``loss`` and ``parse_losses`` over ``batches`` batches, after one that is not counted."""
    waits = HostWaits(where)
    gmm._ASK_EVERY['cpu'] = gmm._ASK_EVERY_ON_ACCELERATORS
    for seed in range(batches + 1):
        data = model.data_preprocessor(scene(seed), True)
        torch.manual_seed(seed)
        if seed == 0:
            model.parse_losses(model.loss(data['inputs'], data['data_samples']))
            continue
        with waits:
            model.parse_losses(model.loss(data['inputs'], data['data_samples']))
    return waits


def build(name: str, folder: str) -> nn.Module:
    here = first_steps.write_configs(str(ROOT), folder)
    return first_steps.build(first_steps.load(name, here, folder))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batches', type=int, default=3, help='counted and averaged (default 3)')
    parser.add_argument('--where', metavar='CASE', help='count by line, of this case of first_steps.py only')
    parser.add_argument('--json', metavar='FILE', help='also write the figures here')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.where:
            waits = count(build(args.where, folder), args.batches, where=True)
            for (line, operator), times in waits.lines.most_common():
                print(f'{times / args.batches:7.1f}  {operator:28s} {line}')
            print(f'{waits.total() / args.batches:7.1f}  in all, a step')
            return
        found = {}
        for name in dict.fromkeys(name for pair in PAIRS for name in pair):
            found[name] = count(build(name, folder), args.batches).total() / args.batches
    for plain, distilled in PAIRS:
        print(f'{plain:18s} {found[plain]:6.1f}   {distilled:18s} {found[distilled]:6.1f}   '
              f'{found[distilled] - found[plain]:+6.1f}')
    write_json(args.json, waits=found, batches=args.batches, batch_size=len(OBJECTS))


if __name__ == '__main__':
    main()
