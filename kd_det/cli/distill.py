"""``kd-det distill``: a folder of images, a teacher and a student in; a distilled student, compared and exported, out.
"""
import argparse
import json
import os.path as osp

from ..errors import ConfigError
from ..export.onnx_file import check_packages
from ..workflow.estimate import estimate
from ..workflow.methods import METHODS
from ..workflow.planning import Plan, make_plan
from ..workflow.request import Request
from ..workflow.running import run as run_stages
from .prepare import add_folder, check_out, prepared_of
from .train import check_amp
from .values import Options, seed

SUMMARY = 'distil a student on a folder of your own images, in one command'
EXAMPLES = """
  kd-det distill --data photos --teacher TEACHER.py teacher.pth --student STUDENT.py --dry-run
  kd-det distill --data photos --teacher TEACHER.py teacher.pth --student STUDENT.py --out distilled_photos
  kd-det distill --data photos --teacher TEACHER.py --student STUDENT.py      # no teacher yet: it is trained first
  kd-det distill ... --student-size 320x240 --teacher-scale 2                  # the teacher sees 640x480
  kd-det distill ... --method pkd --epochs 30 --teacher-epochs 12 --cfg-options model.backbone.depth=34

  DIR holds images with COCO JSON, VOC XML or YOLO txt annotations. The same command again goes on where it stopped.
  Every stage is a command of its own on a config in OUT/configs, which --dry-run prints.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument('--data', required=True, metavar='DIR', help='folder of images with annotations')
    parser.add_argument('--teacher', required=True, nargs='+', metavar=('CONFIG', 'CHECKPOINT'),
                        help='without a checkpoint it is trained first, from the weights that its config begins with')
    parser.add_argument('--student', required=True, metavar='CONFIG', help='of the plain student')
    parser.add_argument('--out', metavar='OUT', help='folder for everything (default distill_<name of DIR>)')
    parser.add_argument('--method', metavar='NAME',
                        help=f'{", ".join(METHODS)} (default: the first that suits the pair)')
    parser.add_argument('--epochs', type=int, metavar='N',
                        help='of the students (default: by the size of the data set)')
    parser.add_argument('--teacher-epochs', type=int, metavar='N',
                        help='of the fine-tuning of the teacher (default: by the size of the data set where its '
                             'classes differ, else none)')
    parser.add_argument('--batch-size', type=int, metavar='N', help='images a step (default: the student\'s config\'s)')
    parser.add_argument('--student-size', type=size, metavar='WxH',
                        help='of the student\'s images (default: its config\'s), for pipelines that resize to one size')
    parser.add_argument('--teacher-scale', type=int, default=1, metavar='N',
                        help='the teacher sees each image at N times the student\'s size, from its own pixels '
                             '(default 1)')
    parser.add_argument('--seed', type=seed, default=0, help='of every training (default 0)')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision')
    parser.add_argument('--onnx', action='store_true', help='export an ONNX file too, verified with ONNX Runtime')
    parser.add_argument('--cfg-options', nargs='+', action=Options, metavar='KEY=VALUE',
                        help='changes of the student')
    parser.add_argument('--dry-run', action='store_true',
                        help='print stages, configs and estimated time; write nothing')
    parser.add_argument('--no-estimate', action='store_true', help='measure no steps, and say no times')
    parser.add_argument('--overwrite', action='store_true', help='replace what is there and differs')
    add_folder(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every stage is done, 1 when one failed."""
    if args.amp:
        check_amp()
    out = args.out or f'distill_{osp.basename(osp.abspath(args.data))}'
    check_out(out, args.data)
    if len(args.teacher) > 2:
        raise ConfigError(f'--teacher: found {" ".join(args.teacher)}; CONFIG CHECKPOINT is expected, or CONFIG alone')
    config, checkpoint = [*args.teacher, None][:2]
    request = Request(config, checkpoint, args.student, out, args.method, args.epochs, args.teacher_epochs,
                      args.batch_size, args.seed, args.amp, args.cfg_options or {}, args.onnx, args.overwrite,
                      args.student_size, args.teacher_scale)
    if args.onnx:
        check_packages()
    plan = make_plan(request, prepared_of(args, args.data))
    if not args.dry_run:
        plan.write()
    if not args.no_estimate:
        estimate(plan, progress)
    progress(plan.describe(with_configs=args.dry_run))
    if args.dry_run:
        return 0
    done = run_stages(plan, say=progress)
    if done:
        progress(result(plan))
    return 0 if done else 1


def size(text: str) -> tuple[int, int]:
    """'320x240' -> (320, 240)."""
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise argparse.ArgumentTypeError(f'{text!r}: WIDTHxHEIGHT in pixels is expected, such as 320x240')
    return int(sides[0]), int(sides[1])


def progress(text: str) -> None:
    print(text, flush=True)


def result(plan: Plan) -> str:
    """The end in words: the three APs, and where everything is."""
    with open(plan.places('comparison.json'), encoding='utf-8') as file:
        rows = json.load(file)['rows']
    found = {row['name']: (row['accuracy']['AP'] or {}).get('mean') for row in rows}
    lines = ['AP: ' + ', '.join(f'{name} {"-" if ap is None else f"{ap:.1f}"}' for name, ap in found.items())]
    plain, distilled, teacher = (found.get(name) for name in ('plain', 'distilled', 'teacher'))
    if None not in (plain, distilled) and distilled <= plain:
        lines.append('THE DISTILLED STUDENT IS NOT BETTER THAN THE PLAIN ONE. '
                     + ('The teacher is not either: it needs more training (--teacher-epochs), or another one is needed'
                        if teacher is not None and teacher <= plain + 1 else
                        'One seed says little; longer training, or another method (--method), may'))
    return '\n'.join([*lines, f'report: {plan.places("report.html")}', f'student: {plan.places("exported")}'])

