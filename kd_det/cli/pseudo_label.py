"""``kd-det pseudo-label``: what trained detectors say about images without labels, as a COCO annotation file."""
import argparse
import sys

from ..datasets.image_folder import listed_images
from ..errors import ConfigError
from ..pseudo.folder import label_folder, refuse_existing
from ..pseudo.labelling import Labeller, Teacher, detections_of
from ..pseudo.sample import check_sample, draw_sample
from ..pseudo.thresholds import ClassThreshold, choose, table

SUMMARY = 'label images with trained detectors, into a COCO annotation file'
EXAMPLES = """\
  kd-det pseudo-label --teacher CONFIG CKPT --images DIR --val val.json --val-images DIR --out pseudo.json
  kd-det pseudo-label --teacher A A.pth --teacher B B.pth --weights 2 1 --images DIR --threshold 0.7 --out pseudo.json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--teacher', nargs=2, action='append', required=True, metavar=('CONFIG', 'CKPT'),
                        help='a trained detector; several are fused (weighted box fusion)')
    parser.add_argument('--weights', nargs='+', type=float, help='of the teachers in the fusion (default: 1 each)')
    parser.add_argument('--images', required=True, help='folder with images')
    parser.add_argument('--names', help='COCO file whose images, and no others, are labelled; its boxes are not read')
    parser.add_argument('--out', required=True, help='annotation file to write; a run that was cut goes on')
    parser.add_argument('--val', help='labelled COCO file on which thresholds are chosen by F-beta')
    parser.add_argument('--val-images', help='its folder of images (default: --images)')
    parser.add_argument('--beta', type=float, default=0.5, help='below 1 prefers precision (default: 0.5)')
    parser.add_argument('--threshold', type=float, help='one score for all classes; beside --val for those classes '
                        'that have no object there')
    parser.add_argument('--ignore-from', type=float, help='score from which a box that is no object is ignored '
                        '(default: by recall on --val; with --threshold half of it)')
    parser.add_argument('--classes', nargs='+',
                        help='class names and their order (default: those of the first teacher)')
    parser.add_argument('--iou', type=float, default=0.55, help='of the fusion (default: 0.55)')
    parser.add_argument('--overwrite', action='store_true', help='replace --out if it is there')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, cuda:1 ... (default: cpu)')
    parser.add_argument('--sample', help='write a picture of nine labelled images there')


def run(args: argparse.Namespace) -> int:
    _check(args)
    names = listed_images('--names', args.names, '--images', args.images) if args.names else None
    teachers = [Teacher(config, checkpoint, args.device) for config, checkpoint in args.teacher]
    labeller = Labeller(teachers, args.classes or teachers[0].classes, args.weights, args.iou)
    if args.val:
        found, truth = detections_of(labeller, args.val, args.val_images or args.images, _progress)
        chosen = choose(labeller.classes, found, truth, args.beta, otherwise=args.threshold)
    else:
        chosen = [ClassThreshold(name, args.threshold, None, None, 0, args.threshold / 2)
                  for name in labeller.classes]
    if args.ignore_from is not None:
        for row in chosen:
            row.ignore = min(args.ignore_from, row.threshold)
    print(table(chosen))
    coco = label_folder(labeller, args.images, args.out, chosen, names, _progress, args.overwrite)
    ignored = sum(note['iscrowd'] for note in coco['annotations'])
    print(f'{args.out}: {len(coco["images"])} images, boxes {coco["info"]["boxes"]}, {ignored} ignored')
    if ignored:
        print('Ignored regions are background to an ordinary config: train with assigner=dict('
              'type=\'IgnoringAssigner\', assigner=<the one it has>), or label with --ignore-from 1')
    if args.sample:
        draw_sample(coco, args.images, args.sample)
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.val is None and args.threshold is None:
        raise ConfigError('pseudo-label: thresholds come from --val FILE, or are one number, --threshold; give one of '
                          'them, or both: the number is then for classes without an object in the file')
    for name, value in (('--threshold', args.threshold), ('--ignore-from', args.ignore_from), ('--iou', args.iou)):
        if value is not None and not 0 <= value <= 1:
            raise ConfigError(f'{name}: found {value}; a number in [0, 1] is expected')
    if args.beta <= 0:
        raise ConfigError(f'--beta: found {args.beta}; a number above 0 is expected')
    if args.weights is not None and (len(args.weights) != len(args.teacher) or min(args.weights) <= 0):
        raise ConfigError(f'--weights: found {args.weights}; one number above 0 for each of {len(args.teacher)} '
                          'teachers')
    refuse_existing(args.out, args.overwrite)
    if args.sample:
        check_sample(args.sample)


def _progress(done: int, images: int, boxes: int | None = None) -> None:
    end, said = '\n' if done == images else '\r', '' if boxes is None else f', {boxes} boxes'
    print(f'{done}/{images} images{said}', end=end, file=sys.stderr, flush=True)
