"""Images, boxes, classes and sizes of a data set, as text."""
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from .found import Part

SMALL, MEDIUM = 32**2, 96**2  # COCO's areas in pixels


def sides(part: Part) -> list[tuple[float, float, int, int]]:
    """(width, height) of every object that is asked for, and of its image, in pixels."""
    return [(thing.box[2], thing.box[3], *picture.size) for picture in part.pictures for thing in picture.things
            if not thing.crowd]


def statistics(parts: Mapping[str, Part], classes: Sequence[str]) -> str:
    """A table of parts, one of classes, and the sizes of objects."""
    names = list(parts)
    lines = [_row('', names)]
    lines.append(_row('images', [len(parts[name].pictures) for name in names]))
    lines.append(_row('  without objects', [sum(not p.things for p in parts[name].pictures) for name in names]))
    lines.append(_row('boxes', [sum(len(p.things) for p in parts[name].pictures) for name in names]))
    counts = {name: Counter(thing.label for p in parts[name].pictures for thing in p.things) for name in names}
    lines += [_row(f'  {label}', [counts[name][label] for name in names]) for label in classes]
    for title, low, high in (('small, under 32x32', 0, SMALL), ('medium', SMALL, MEDIUM),
                             ('large, 96x96 and over', MEDIUM, float('inf'))):
        lines.append(_row(title, [_share([low <= w * h < high for w, h, *_ in sides(parts[name])]) for name in names]))
    lines.append(_row('median side in pixels', [_median(w * h for w, h, *_ in sides(parts[name])) for name in names]))
    lines.append(_row('  as share of the image', [_relative(sides(parts[name])) for name in names]))
    shapes = Counter(picture.size for part in parts.values() for picture in part.pictures)
    common = ', '.join(f'{w}x{h} ({count})' for (w, h), count in shapes.most_common(3))
    lines.append(f'image sizes: {common}' + (f' and {len(shapes) - 3} others' if len(shapes) > 3 else ''))
    return '\n'.join(lines)


def _row(title: str, cells: Sequence) -> str:
    return f'{title:<26}' + ''.join(f'{cell:>9}' for cell in cells)


def _share(flags: list[bool]) -> str:
    return f'{sum(flags) / len(flags):.0%}' if flags else '-'


def _median(areas) -> str:
    found = [area**0.5 for area in areas]
    return f'{median(found):.0f}' if found else '-'


def _relative(found: list[tuple[float, float, int, int]]) -> str:
    return f'{median((w * h / (width * height))**0.5 for w, h, width, height in found):.0%}' if found else '-'
