#!/usr/bin/env python
"""Do two checkouts of the project train alike, bit for bit? The safety net under a change of structure.

    git worktree add ../base 68a4f81
    python tools/benchmarks/same_steps.py ../base                # against the checkout that this script lies in
    python tools/benchmarks/same_steps.py ../base ../other --only 'paa/*' --json differences.json

Each case is a small config of one method (``first_steps.py`` lists them: every column of Faster R-CNN, two resolutions,
Cascade and Mask R-CNN students, LAD, SoLAD and soft labels, CoLAD with each criterion) on generated images of 128x96
pixels, ten steps at seed 0 by default. The config files are each checkout's own; cases and batches are this script's.
Teachers' and peers' weights are random, seeded, made once by OLD and read by both. A process per checkout and case, one
thread. Compared for exact equality, and printed is the first difference of a case in this order:

- per step the losses by name, level by level. Other logged values (``acc``, ``first_teaches``) where both have them:
  a further one is no difference. Then the norm of each parameter's gradient; parameters outside ``state_dict``
  (adapters, a peer) by shape and value, since their names are internal;
- the final ``state_dict`` by name, and the final tensors of what trains beside it.

The exit code is 1 if any case differs or fails; one of a method that OLD does not have yet is only named. The optimizer
is AdamW, tensor by tensor, without clipping: another order of parameters changes nothing here. A difference in the last
bits only may be a changed order of additions: the report gives the largest relative difference of a loss over all steps
to tell such a case by.

``--record FILE`` writes OLD's first-step losses instead and compares nothing: the file that
``tests/test_first_steps.py`` holds every later state against. It is renewed, from the last good commit, when a case is
added or a change of value is meant: ``python tools/benchmarks/same_steps.py ../base --record
tests/data/first_steps.json``.
"""
import argparse
import fnmatch
import json
import os
import os.path as osp
import subprocess
import sys
import tempfile
import time
import traceback

ROOT = osp.dirname(osp.dirname(osp.dirname(osp.realpath(__file__))))


# -- the worker: one checkout
# -------------------------------------------------------------------------------------------
def work(checkout: str, folder: str, steps: int, only: str | None) -> None:
    """In a process with ``PYTHONPATH=checkout``: every case in a forked process, its record or error to ``folder``."""
    # an editable install answers for modules that this checkout lacks with those of another one
    sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in str(getattr(f, '__module__', f))]
    import logging

    import first_steps
    import torch
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    here = first_steps.write_configs(checkout, folder)
    names = chosen(first_steps.CASES, only)
    with open(osp.join(folder, 'names.json'), 'w', encoding='utf-8') as file:
        json.dump(names, file)
    for name in names:
        path = osp.join(folder, name.replace('/', '_'))
        if (lacking := first_steps.lacks(name, checkout)) is not None:
            with open(path + '.lacks', 'w', encoding='utf-8') as file:
                file.write(lacking)
            continue
        if (child := os.fork()) == 0:
            try:
                record = first_steps.record(name, here, osp.dirname(folder), steps)
                if (found := first_steps.sources()) != {osp.realpath(checkout)}:
                    raise RuntimeError(f'modules of kd_det come from {found}')
                torch.save(record, path + '.pth')
            except Exception as error:
                with open(path + '.error', 'w', encoding='utf-8') as file:
                    file.write(f'{type(error).__name__}: {error}\n{traceback.format_exc()}')
            finally:
                sys.stdout.flush()
                os._exit(0)
        os.waitpid(child, 0)


def chosen(cases: dict, only: str | None) -> list[str]:
    """The names that the pattern matches; a pattern without wildcards matches anywhere in a name."""
    pattern = only if only and any(c in only for c in '*?[') else f'*{only or ""}*'
    return [name for name in cases if fnmatch.fnmatch(name, pattern)]


# -- the comparison
# -----------------------------------------------------------------------------------------------------
def read(folder: str, name: str) -> dict:
    """The record of a case, or ``dict(error=...)``, with ``lacks`` where the checkout has no such case."""
    import torch
    path = osp.join(folder, name.replace('/', '_'))
    if osp.exists(path + '.pth'):
        return torch.load(path + '.pth', weights_only=True)
    if osp.exists(path + '.error'):
        with open(path + '.error', encoding='utf-8') as file:
            return dict(error=file.read())
    if osp.exists(path + '.lacks'):
        with open(path + '.lacks', encoding='utf-8') as file:
            lacking = file.read()
        return dict(error=f'it has no {lacking}', lacks=lacking)
    return dict(error='its process was killed')


def difference(old: dict, new: dict) -> dict | None:
    """The first difference of two records: ``step`` (None: after the last), ``name``, ``old`` and ``new`` value."""
    for step, (one, other) in enumerate(zip(old['losses'], new['losses']), 1):
        for name in [*one, *(n for n in other if n not in one)]:
            if name in one and name in other and not _same(one[name], other[name]):
                return dict(step=step, name=name, old=one[name], new=other[name])
            if 'loss' in name and (name in one) != (name in other):
                return dict(step=step, name=name, old=one.get(name), new=other.get(name))
        one, other = old['gradients'][step - 1], new['gradients'][step - 1]
        for name in [n for n in old['weights'] if not _same(one.get(n), other.get(n))]:
            return dict(step=step, name=f'gradient of {name}', old=one.get(name), new=other.get(name))
        inside = [sorted(v for k, v in g.items() if k not in r['weights']) for g, r in ((one, old), (other, new))]
        if not _same(*inside):
            return dict(step=step, name='gradients beside the student', old=_only(*inside), new=_only(*inside[::-1]))
    for name in [*old['weights'], *(n for n in new['weights'] if n not in old['weights'])]:
        one, other = old['weights'].get(name), new['weights'].get(name)
        if one is None or other is None or one.shape != other.shape or not one.equal(other):
            return dict(step=None, name=name, old=_shown(one), new=_shown(other))
    beside = [sorted((tuple(v.shape), v.numpy().tobytes(), k) for k, v in r['beside'].items()) for r in (old, new)]
    if [b[:2] for b in beside[0]] != [b[:2] for b in beside[1]]:
        lone = [[k for *content, k in here if content not in [list(b[:2]) for b in there]]
                for here, there in (beside, beside[::-1])]
        return dict(step=None, name='tensors beside the student',
                    **{side: f'{len(b)}, without partner {names[:3]}' for side, b, names in
                       zip(('old', 'new'), beside, lone)})
    return None


def _same(one: object, other: object) -> bool:
    return one == other or repr(one) == repr(other)  # NaN is no difference from NaN


def _only(here: list, there: list) -> object:
    """What ``here`` has and ``there`` has not; the first."""
    return next((v for v in here if v not in there), f'{len(here)} in all')


def _shown(tensor) -> str | None:
    return None if tensor is None else f'{tuple(tensor.shape)}, norm {float(tensor.double().norm()):.17g}'


def largest(old: dict, new: dict) -> float:
    """The largest relative difference of a loss value over all steps."""
    pairs = [(a, b) for one, other in zip(old['losses'], new['losses']) for name in one if name in other
             for a, b in zip(one[name], other[name])]
    return max((abs(a - b) / max(abs(a), abs(b)) for a, b in pairs if a != b), default=0.0)


def compare(names: list[str], folders: tuple[str, str]) -> list[dict]:
    """Every case's outcome, printed as one line each."""
    results = []
    for name in names:
        old, new = (read(folder, name) for folder in folders)
        result: dict = dict(case=name, equal=False)
        if 'lacks' in old and 'error' not in new:
            result['lacks'] = old['lacks']
            results.append(result)
            print(f'{name:32s} NEW ONLY OLD has no {old["lacks"]}', flush=True)
            continue
        for side, record in (('OLD', old), ('NEW', new)):
            if 'error' in record:
                result.setdefault('error', f'{side}: {record["error"]}')
        if 'error' not in result:
            found = difference(old, new)
            result.update(equal=found is None, difference=found, largest=largest(old, new))
        results.append(result)
        if 'error' in result:
            line = 'FAILS    ' + result['error'].splitlines()[0]
        elif result['equal']:
            beside = f' and {len(old["beside"])} beside it' if old['beside'] else ''
            line = (f'equal    {len(old["losses"])} steps, {len(old["losses"][0])} logged values, '
                    f'{len(old["weights"])} tensors of the student{beside}')
        else:
            d = result['difference']
            when = f'step {d["step"]}' if d['step'] else 'final weights'
            line = (f'DIFFERS  {when}: {d["name"]}: {d["old"]} -> {d["new"]}; '
                    f'losses differ by up to {result["largest"]:.1e}')
        print(f'{name:32s} {line}', flush=True)
    return results


def record(path: str, names: list[str], folder: str) -> None:
    """Write the first step's losses of every case, seven digits each. Raises ``SystemExit`` if one fails."""
    found = {name: read(folder, name) for name in names}
    for name, case in found.items():
        if 'error' in case:
            sys.exit(f'{name} fails, nothing is written: {case["error"]}')
    lines = [f' {json.dumps(name)}: ' + json.dumps({k: [float(f'{v:.7g}') for v in values]
                                                    for k, values in case['losses'][0].items() if 'loss' in k})
             for name, case in found.items()]
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{\n' + ',\n'.join(lines) + '\n}\n')
    print(f'{path}: first-step losses of {len(names)} cases')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('old', metavar='OLD', help='a checkout of the project')
    parser.add_argument('new', metavar='NEW', nargs='?', default=ROOT, help='another (default: this script\'s own)')
    parser.add_argument('--only', metavar='PATTERN',
                        help='cases whose name matches, e.g. faster_rcnn or "colad/*fisher"')
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--json', metavar='FILE', help='write the outcome of every case here too')
    parser.add_argument('--record', metavar='FILE', help='write OLD\'s first-step losses here, compare nothing')
    parser.add_argument('--worker', metavar='FOLDER', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.old, args.worker, args.steps, args.only)
    checkouts = [osp.realpath(path) for path in ((args.old,) if args.record else (args.old, args.new))]
    for path in checkouts:
        if not osp.isdir(osp.join(path, 'kd_det')):
            parser.error(f'{path} is no checkout of the project: it has no folder kd_det')
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        folders = tuple(osp.join(folder, side) for side in ('old', 'new')[:len(checkouts)])
        for checkout, side in zip(checkouts, folders):
            os.mkdir(side)
            command = [sys.executable, '-W', 'ignore', osp.realpath(__file__), checkout, '--worker', side, '--steps',
                       '1' if args.record else str(args.steps), *(['--only', args.only] if args.only else [])]
            subprocess.run(command, cwd=checkout, check=True,
                           env={**os.environ, 'PYTHONPATH': checkout, 'OMP_NUM_THREADS': '1'})
        with open(osp.join(folders[0], 'names.json'), encoding='utf-8') as file:
            names = json.load(file)
        if not names:
            parser.error(f'--only {args.only}: no case has such a name')
        if args.record:
            return record(args.record, names, folders[0])
        results = compare(names, folders)
    both = [r for r in results if 'lacks' not in r]
    bad = [r['case'] for r in both if not r['equal']]
    print(f'{len(both) - len(bad)} of {len(both)} cases that both have are equal, {time.perf_counter() - start:.0f} s')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(dict(old=checkouts[0], new=checkouts[1], steps=args.steps, cases=results), file, indent=1)
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
