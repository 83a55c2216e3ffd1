"""Time PAA's reassignment: one batched fit against MMDetection's scikit-learn loop, on the CPU.

    OMP_NUM_THREADS=1 python tools/benchmarks/mixtures.py [--batch-sizes 2 16] [--repeats 3]

Trains a tiny PAA head on drawn rectangles (12 objects an image on average), keeps the costs it meets at five stages,
and gives each batch of them to both heads by turns, so that whatever else runs on the machine slows both. Prints
medians in milliseconds an image, the ratio's median and quartiles over batches, and on how many objects both choose the
same positives. "Reassign" is all of ``paa_reassign``, the fit and what is around it; that is what a training step pays.
"""
import argparse
import statistics
import sys
import time
import warnings
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tests')]  # the drawn scenes are the tests' own

import kd_det  # noqa: E402, F401
from kd_det.heads.batched_paa import BatchedPAAHead, _CostSet  # noqa: E402


def batched(head: BatchedPAAHead, calls: list[tuple]) -> list[tuple]:
    """What the head does in a loss: the images wait, the first call fits them all."""
    head._waiting = [_CostSet(args[0], args[4], args[5], args[6]) for args in calls if len(args[4])]
    return [head.paa_reassign(*args) for args in calls]


def looped(head: torch.nn.Module, calls: list[tuple]) -> list[tuple]:
    return [head.paa_reassign(*args) for args in calls]


def timed(function, head: torch.nn.Module, calls: list[tuple]) -> tuple[float, list[tuple]]:
    start = time.perf_counter()
    result = function(head, calls)
    return 1e3 * (time.perf_counter() - start) / len(calls), result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[2, 16])
    parser.add_argument('--image-size', type=int, default=256, help='pixels (default 256)')
    parser.add_argument('--repeats', type=int, default=3, help='pairs of runs a batch (default 3)')
    parser.add_argument('--images', type=int, default=80, help='images in all (default 80)')
    args = parser.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    try:
        import sklearn  # noqa: F401
    except ImportError:
        parser.error('MMDetection needs scikit-learn for the loop: pip install scikit-learn')
    from mmdet.models.dense_heads import PAAHead
    from paa_scenes import head_cfg, reassign_calls

    plain, ours = PAAHead(**head_cfg()), BatchedPAAHead(**head_cfg())
    images = [call for calls in reassign_calls(
        ours, stages=5, per_stage=max(1, args.images // 80), size=args.image_size, batch=16)
        for call in calls]
    objects = sum(len(call[5].unique()) for call in images)
    print(f'{len(images)} images, {objects} objects with candidates, '
          f'{sum(len(call[4]) for call in images)} candidates; torch {torch.__version__}, 1 thread')
    looped(plain, images[:2]), batched(ours, images[:2])  # warm up
    for size in args.batch_sizes:
        slow, fast, ratios, wrong, refused = [], [], [], 0, 0
        for start in range(0, len(images) - size + 1, size):
            chunk = images[start:start + size]
            for _ in range(args.repeats):
                try:
                    loop_ms, expected = timed(looped, plain, chunk)
                except ValueError:  # scikit-learn: a variance below zero after rounding
                    refused += 1
                    break
                batch_ms, found = timed(batched, ours, chunk)
                slow.append(loop_ms)
                fast.append(batch_ms)
                ratios.append(loop_ms / batch_ms)
            else:
                wrong += sum(len(call[5][(a[0] != b[0])[call[4]]].unique())
                             for call, a, b in zip(chunk, expected, found))
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f'batch {size:3d}: scikit-learn loop {statistics.median(slow):7.2f} ms/image, '
              f'batched {statistics.median(fast):6.2f} ms/image, '
              f'ratio {middle:5.1f} ({low:.1f} to {high:.1f}); '
              f'objects with other positives: {wrong}; batches scikit-learn refused: {refused}')


if __name__ == '__main__':
    main()
