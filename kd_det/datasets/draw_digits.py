"""How a picture of the digits set comes about: whose ink and ground, and how they are mixed.

Nothing here touches the disk; make_digits.py does. All randomness is the caller's generator.
"""
import cv2
import numpy as np

LEAST_VISIBLE = 0.7  # share of its ink that every digit keeps under later ones and at the edge
MOST_SHARED = 0.25  # share of its ink that may lie on other ink: strokes that merge read as neither


def background(rng, photo, box, size):
    """One tile, re-coloured, turned, zoomed, mirrored beyond its edges: (H, W, 3) float32."""
    x, y, w, h = box
    tile = photo[y:y + h, x:x + w].astype(np.float32)  # (h, w, 3): nothing else can leak in
    if rng.random() < 0.3:
        tile = np.ascontiguousarray(tile[:, :, rng.permutation(3)])
    gain = (rng.uniform(0.6, 1.25) * rng.uniform(0.85, 1.15, 3)).astype(np.float32)
    mean = tile.mean((0, 1))
    shift = mean - mean * gain + np.float32(rng.uniform(-35, 35))
    tile = np.clip(tile * gain + shift, 0, 255)
    zoom = rng.uniform(0.8, 2.2) * min(size[0] / 320, size[1] / 240)
    matrix = cv2.getRotationMatrix2D((rng.uniform(0, w), rng.uniform(0, h)),
                                     rng.uniform(-25, 25), zoom)
    matrix[:, 2] += np.array(size) * rng.uniform(0.2, 0.8, 2) - (w / 2, h / 2)
    return cv2.warpAffine(tile, matrix, tuple(size), flags=cv2.INTER_LINEAR,
                          borderMode=cv2.BORDER_REFLECT)


def render(rng, glyph, height):
    """Opacity of one 8x8 glyph drawn about ``height`` pixels high: (P, P) float32 in [0, 1].

    Ink is where opacity >= 0.5. Smooth (cubic) from 8x8; small turn, slant, stretch and blur.
    """
    source = np.pad(glyph.astype(np.float32) / 16, 2)  # (12, 12)
    angle, slant = np.deg2rad(rng.uniform(-12, 12)), rng.uniform(-0.15, 0.15)
    stretch = rng.uniform(0.85, 1.2)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.array([[stretch, slant], [0, 1]]) * (height / 8)
    side = int(np.ceil(height * 1.8)) + 4
    matrix = np.hstack([linear, ((side - 1) / 2 - linear @ (5.5, 5.5))[:, None]])
    value = cv2.warpAffine(source, matrix, (side, side), flags=cv2.INTER_CUBIC)
    opacity = np.clip((value - 0.5) / rng.uniform(0.4, 0.9) + 0.5, 0, 1)
    blur = rng.uniform(0, 0.025) * height
    if blur > 0.3:
        opacity = cv2.GaussianBlur(opacity, (0, 0), blur)
    return opacity / max(opacity.max(), 1e-6)


def scribble(rng, images, pool):
    """An 8x8 glyph that is no digit: shuffled quarters of this split's digits, or a sign."""
    if rng.random() < 0.5:
        out = np.zeros((8, 8), images.dtype)
        gap = rng.integers(8)  # 0 .. 3: that quarter stays empty
        for place, (y, x) in enumerate(((0, 0), (0, 4), (4, 0), (4, 4))):
            donor = images[rng.choice(pool[rng.integers(10)])]
            part = donor[4 - y:8 - y, 4 - x:8 - x]  # the opposite quarter, turned
            if place != gap:
                out[y:y + 4, x:x + 4] = np.rot90(part, rng.integers(4))
        return out
    angles = rng.uniform(0, 2 * np.pi)
    kind = rng.choice(['cross', 'polygon', 'zigzag'])
    if kind == 'zigzag':  # as W, whichever way up
        points = np.stack([np.linspace(-27, 27, 5), rng.uniform(12, 25) * (-1) ** np.arange(5)], 1)
        turn = np.array([[np.cos(angles), -np.sin(angles)], [np.sin(angles), np.cos(angles)]])
        lines = [points @ turn]
    else:
        corners = rng.integers(3, 5) if kind == 'polygon' else rng.choice([4, 6])
        angles = angles + (np.arange(corners) + rng.uniform(-0.2, 0.2, corners)) \
            * 2 * np.pi / corners
        points = rng.uniform(20, 28) * np.stack([np.cos(angles), np.sin(angles)], 1)
        half = corners // 2
        lines = [np.concatenate([points, points[:1]])] if kind == 'polygon' else \
            [points[[k, k + half]] for k in range(half)]
    drawn = np.zeros((64, 64), np.float32)
    for line in lines:
        cv2.polylines(drawn, [np.rint(line + 32).astype(np.int32)], False, 16.0, 7)
    return cv2.resize(drawn, (8, 8), interpolation=cv2.INTER_AREA)


def colour_on(rng, under, small):
    """A colour that stands out, brighter or darker, from the (K, 3) pixels under the ink."""
    level = under.mean(1)  # (K,)
    mean, least = level.mean(), 44 + 0.9 * level.std() + 14 * small
    delta = rng.uniform(least, least + 70) * rng.choice([-1, 1])
    grey = mean + delta if 0 <= mean + delta <= 255 else mean - delta
    tint = rng.normal(0, 28, 3)
    return np.clip(grey + tint - tint.mean(), 0, 255).astype(np.float32)


class Picture:
    """A canvas, and whose ink each pixel shows (-1: nobody's)."""

    def __init__(self, canvas):
        self.canvas = canvas  # (H, W, 3) float32
        self.owner = np.full(canvas.shape[:2], -1, np.int32)  # (H, W)
        self.ink = []  # full ink of every thing drawn, in pixels
        self.digits = {}  # thing number -> (label, sample)

    def paste(self, rng, opacity, small=False, digit=None):
        """Draws a thing at a random place unless that would hide a digit; says whether it did.

        Args:
            opacity (ndarray): (P, P) from ``render``.
            small (bool): asks for more contrast.
            digit (tuple, optional): (label, sample number); None for a distractor.
        """
        (rows, columns), side = self.owner.shape, opacity.shape[0]
        x, y = (int(rng.uniform(-0.35 * side, n - 0.65 * side)) for n in (columns, rows))
        top, left = max(y, 0), max(x, 0)
        area = np.s_[top:min(y + side, rows), left:min(x + side, columns)]
        piece = opacity[top - y:rows - y, left - x:columns - x]
        ink = piece >= 0.5
        full = int((opacity >= 0.5).sum())
        if full < 6 or ink.sum() < LEAST_VISIBLE * full:
            return False
        hidden = self.owner[area][ink]  # (K,)
        if (hidden >= 0).sum() > MOST_SHARED * ink.sum():
            return False
        for thing in np.unique(hidden[hidden >= 0]):
            left_over = (self.owner == thing).sum() - (hidden == thing).sum()
            if thing in self.digits and left_over < LEAST_VISIBLE * self.ink[thing]:
                return False
        colour = colour_on(rng, self.canvas[area][ink], small)
        weight = (piece * np.float32(rng.uniform(0.75, 1)))[..., None]  # (h, w, 1)
        self.canvas[area] += weight * (colour - self.canvas[area])
        self.owner[area][ink] = len(self.ink)
        if digit is not None:
            self.digits[len(self.ink)] = digit
        self.ink.append(full)
        return True

    def box(self, thing):
        """[x, y, w, h] of the ink of a thing that is seen; pixel k covers [k, k + 1)."""
        mask = self.owner == thing  # (H, W)
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        return [int(columns[0]), int(rows[0]), int(columns[-1] - columns[0] + 1),
                int(rows[-1] - rows[0] + 1)]


def draw(rng, canvas, images, pool):
    """A Picture on an (H, W, 3) canvas; every digit in it shows LEAST_VISIBLE of its ink.

    2 to 8 digits (as far as they fit) and 0 to 2 distractors; about 6 % of the pictures hold no digit. Heights: 24 to
    120 pixels at 320x240, half of them above 65, so that networks trained from scratch for minutes learn something and
    small digits stay hard.
    """
    picture = Picture(canvas)
    scale = min(canvas.shape[1] / 320, canvas.shape[0] / 240)
    digits = 0 if rng.random() < 0.06 else rng.integers(2, 9)
    for is_digit in rng.permutation([True] * digits + [False] * rng.integers(0, 3)):
        for _ in range(8):  # a crowded picture may end with fewer
            height = max(10, 24 * (120 / 24) ** (rng.random() ** 0.7) * scale)
            if is_digit:
                label = int(rng.integers(10))
                sample = int(rng.choice(pool[label]))
                glyph, digit = images[sample], (label, sample)
            else:
                glyph, digit = scribble(rng, images, pool), None
            if picture.paste(rng, render(rng, glyph, height), height < 20, digit):
                break
    return picture


def expose(rng, canvas):
    """Light falling off to one side, blur, noise: (H, W, 3) uint8."""
    rows, columns = canvas.shape[:2]
    across, down = rng.uniform(-0.2, 0.2, 2)
    light = (1 + across * np.linspace(-1, 1, columns)[None, :]
             + down * np.linspace(-1, 1, rows)[:, None])  # (H, W)
    canvas = canvas * light[..., None].astype(np.float32)
    if rng.random() < 0.4:
        canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.4, 0.9))
    noise = rng.standard_normal(canvas.shape, np.float32)
    noise *= np.float32(rng.uniform(0, 11))
    canvas += noise
    return np.clip(np.rint(canvas, out=canvas), 0, 255, out=canvas).astype(np.uint8)
