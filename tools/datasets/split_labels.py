"""Keep the labels of a part of a COCO annotation file, and list the other images without theirs.

    python tools/datasets/split_labels.py data/bccd/annotations/train.json --part 0.2 --seed 0

writes train_20.json (images with labels) and train_20_rest.json (images, no labels) beside it.
"""
import argparse
import json
import os.path as osp
import random

from kd_det.files import write_whole


def split(coco: dict, part: float, seed: int) -> tuple[dict, dict]:
    """(labelled, unlabelled): images drawn by ``seed``; a class without an object in the first is an error."""
    images = sorted(coco['images'], key=lambda image: image['id'])
    count = max(1, round(part * len(images)))
    chosen = {image['id'] for image in random.Random(seed).sample(images, count)}
    kept = [note for note in coco['annotations'] if note['image_id'] in chosen]
    missing = {c['name'] for c in coco['categories']} - {
        c['name'] for c in coco['categories'] if any(note['category_id'] == c['id'] for note in kept)}
    if missing:
        raise SystemExit(f'no object of {sorted(missing)} in {count} images; another --seed, or a larger --part')
    labelled = dict(coco, images=[image for image in images if image['id'] in chosen], annotations=kept)
    rest = dict(coco, images=[image for image in images if image['id'] not in chosen], annotations=[])
    return labelled, rest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('annotations')
    parser.add_argument('--part', type=float, default=0.2)
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    if not 0 < args.part < 1:
        parser.error(f'--part {args.part}: a number in (0, 1) is expected')
    with open(args.annotations, encoding='utf-8') as file:
        coco = json.load(file)
    stem = f'{osp.splitext(args.annotations)[0]}_{round(100 * args.part)}'
    for path, found in zip((f'{stem}.json', f'{stem}_rest.json'), split(coco, args.part, args.seed)):
        write_whole(path, json.dumps(found))
        print(f'{path}: {len(found["images"])} images, {len(found["annotations"])} objects')


if __name__ == '__main__':
    main()
