"""A part of a data set in COCO's format."""
from .found import Part


def coco_of(part: Part, classes: list[str]) -> dict:
    """A part in COCO's format; category ids 1, 2, ... follow the order of ``classes``."""
    ids = {name: i for i, name in enumerate(classes, 1)}
    images, annotations = [], []
    for image_id, picture in enumerate(part.pictures, 1):
        images.append(dict(id=image_id, file_name=picture.file, width=picture.size[0], height=picture.size[1]))
        for thing in picture.things:
            box = [round(value, 3) for value in thing.box]
            note = dict(id=len(annotations) + 1, image_id=image_id, category_id=ids[thing.label], bbox=box,
                        area=round(box[2] * box[3], 3), iscrowd=int(thing.crowd))
            annotations.append({**note, 'segmentation': thing.outline} if thing.outline else note)
    return dict(images=images, annotations=annotations, categories=[dict(id=i, name=name) for name, i in ids.items()])
