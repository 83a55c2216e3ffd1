"""Boxes, captions, heat maps, and panels side by side."""
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..errors import CompareError

COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#8B4513', '#4B0082')
"""Okabe and Ito's, which people with any colour vision can tell apart, and two more."""
GAP = 6  # pixels between panels
LINE = 16  # pixels of a line of caption


@dataclass
class Mark:
    """A box on a picture.

    Attributes:
        box: (x, y, width, height), pixels of the file.
        colour: ``'#rrggbb'``.
        label: beside its upper left corner.
        dashed: its outline.
    """
    box: Sequence[float]
    colour: str
    label: str = ''
    dashed: bool = False


@dataclass
class Dot:
    """A place on a picture: (x, y) in pixels of the file, radius in pixels of the picture."""
    place: tuple[float, float]
    colour: str
    radius: float = 3.0


@dataclass
class Panel:
    """A picture with its caption below."""
    image: Image.Image
    caption: str = ''
    lines: list[str] = field(default_factory=list)


def read(path: str, side: int) -> tuple[Image.Image, float]:
    """An image file, its longer side at most ``side`` pixels, and the picture's pixels per pixel of the file.

    Raises:
        CompareError: it cannot be read.
    """
    found = cv2.imread(path)
    if found is None:
        raise CompareError(f'image {path!r} cannot be read')
    image = Image.fromarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB))
    scale = min(1.0, side / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR), size[0] / image.width


def font(size: int = 12) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    try:
        return ImageFont.load_default(size)
    except TypeError:  # Pillow before 10.1 has one size
        return ImageFont.load_default()


def marked(image: Image.Image, scale: float, marks: Sequence[Mark] = (), dots: Sequence[Dot] = ()) -> Image.Image:
    """A copy of a picture with boxes and places on it."""
    image = image.copy()
    draw, letters = ImageDraw.Draw(image), font()
    for mark in marks:
        x, y, w, h = (value * scale for value in mark.box)
        _outline(draw, (x, y, x + w, y + h), mark.colour, mark.dashed)
    for mark in marks:  # above all outlines
        if mark.label:
            x, y = mark.box[0] * scale, mark.box[1] * scale
            left, top, right, bottom = draw.textbbox((0, 0), mark.label, font=letters)
            width, height = right - left + 4, bottom - top + 4
            x = min(max(x, 0), max(image.width - width, 0))
            y = y - height if y >= height else min(y + 1, image.height - height)
            draw.rectangle((x, y, x + width, y + height), fill=mark.colour)
            draw.text((x + 2 - left, y + 2 - top), mark.label, fill='white', font=letters)
    for dot in dots:
        x, y = dot.place[0] * scale, dot.place[1] * scale
        draw.ellipse((x - dot.radius, y - dot.radius, x + dot.radius, y + dot.radius), fill=dot.colour, outline='white')
    return image


def _outline(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], colour: str, dashed: bool) -> None:
    x1, y1, x2, y2 = box
    if not dashed:
        draw.rectangle((x1, y1, max(x2, x1), max(y2, y1)), outline=colour, width=2)
        return
    for start, end in (((x1, y1), (x2, y1)), ((x2, y1), (x2, y2)), ((x2, y2), (x1, y2)), ((x1, y2), (x1, y1))):
        length = max(abs(end[0] - start[0]), abs(end[1] - start[1]))
        for part in range(0, ceil(length), 10):
            near, far = part / length, min(part + 6, length) / length
            draw.line([tuple(a + (b - a) * t for a, b in zip(start, end)) for t in (near, far)], fill=colour, width=2)


def heat(values: np.ndarray, size: tuple[int, int]) -> tuple[Image.Image, float, float]:
    """A map (h, w) as a picture of ``size`` (width, height), from its smallest value (dark) to its largest (yellow).

    Cells stay visible: a value is one square. Returns the two values too.
    """
    low, high = float(values.min()), float(values.max())
    level = ((values - low) / max(high - low, 1e-12) * 255).astype(np.uint8)
    level = cv2.resize(level, size, interpolation=cv2.INTER_NEAREST)
    colours = cv2.applyColorMap(level, cv2.COLORMAP_VIRIDIS)
    return Image.fromarray(cv2.cvtColor(colours, cv2.COLOR_BGR2RGB)), low, high


def grid(rows: Sequence[Sequence[Panel]], title: str = '') -> Image.Image:
    """Panels in rows, each with its caption below; the title above all."""
    letters = font()
    probe = ImageDraw.Draw(Image.new('RGB', (1, 1)))
    for panel in (panel for row in rows for panel in row):
        panel.lines = _wrapped(probe, panel.caption, panel.image.width, letters)
    wide = max(sum(panel.image.width + GAP for panel in row) + GAP for row in rows)
    heading = _wrapped(probe, title, wide - 2 * GAP, letters) if title else []
    heights = [max(panel.image.height + LINE * len(panel.lines) for panel in row) + GAP for row in rows]
    whole = Image.new('RGB', (wide, sum(heights) + GAP + LINE * len(heading)), 'white')
    draw = ImageDraw.Draw(whole)
    y = GAP
    for line in heading:
        draw.text((GAP, y), line, fill='black', font=letters)
        y += LINE
    for row, height in zip(rows, heights):
        x = GAP
        for panel in row:
            whole.paste(panel.image, (x, y))
            for i, line in enumerate(panel.lines):
                draw.text((x, y + panel.image.height + LINE * i), line, fill='black', font=letters)
            x += panel.image.width + GAP
        y += height
    return whole


def _wrapped(draw: ImageDraw.ImageDraw, text: str, width: int, letters: ImageFont.ImageFont) -> list[str]:
    lines: list[str] = []
    for paragraph in text.split('\n') if text else []:
        line = ''
        for word in paragraph.split(' '):
            longer = f'{line} {word}' if line else word
            if line and draw.textlength(longer, font=letters) > width:
                lines.append(line)
                longer = word
            line = longer
        lines.append(line)
    return lines


def png(image: Image.Image) -> bytes:
    """The picture as the content of a PNG file."""
    stream = io.BytesIO()
    image.save(stream, 'PNG', optimize=True)
    return stream.getvalue()
