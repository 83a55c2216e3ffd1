"""How far a difference in AP depends on which images happened to be evaluated: paired bootstrap over images.

Each draw takes as many images as the evaluation set has, with replacement, the same for both detectors, and computes
the difference of their AP on them; the middle 95 % of the differences are the interval (Efron and Tibshirani 1993,
chapter 13, percentile interval). It says nothing about the spread over seeds, which is a matter of training.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import CompareError
from .matching import Matches, figures, precisions

DRAWS = 1000
_AT_ONCE = 250  # draws in one matrix product: bounds the memory, not the result


@dataclass
class ImageDifference:
    """One detector less another, in AP points.

    Attributes:
        value (float): on the evaluation set as it is.
        low, high (float): 2.5 and 97.5 percentiles over the draws.
        draws (int): those in which both have something to measure.
    """
    value: float
    low: float
    high: float
    draws: int

    @property
    def wins(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low > 0


def draw_images(images: int, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """(draws, images): how often each image was taken; every row sums to ``images``."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)


def paired_bootstrap(one: Sequence[Matches], base: Sequence[Matches], draws: int = DRAWS,
                     seed: int = 0) -> dict[str, ImageDifference]:
    """``one`` less ``base``, by column of :func:`.matching.figures`.

    Args:
        one, base (Sequence[Matches]): one for each seed of the two detectors, in the same order; the difference is the
            mean over the seeds, within every draw. The images are drawn, the seeds are not.
        draws (int): number of draws.
        seed (int): of the draws.

    Returns:
        dict[str, ImageDifference]: without the columns that have nothing to measure on the evaluation set.

    Raises:
        CompareError: no detectors, unpaired ones, or different images or classes.
    """
    if not one or len(one) != len(base):
        raise CompareError(f'a paired bootstrap needs as many detectors on both sides; found {len(one)} and '
                           f'{len(base)}')
    for other in (*one, *base):
        if other.images != one[0].images or other.classes != one[0].classes:
            raise CompareError('a paired bootstrap needs the same images and classes on both sides; one detector was '
                               'evaluated on another data set')
    classes, images = one[0].classes, len(one[0].images)
    weights = np.concatenate([np.ones((1, images)), draw_images(images, draws, seed)])
    parts = []
    for start in range(0, len(weights), _AT_ONCE):
        part = weights[start:start + _AT_ONCE]
        sides = [_mean([figures(precisions(matches, part), classes) for matches in side]) for side in (one, base)]
        parts.append({name: sides[0][name] - sides[1][name] for name in sides[0]})
    found = {}
    for name in parts[0]:
        values = np.concatenate([part[name] for part in parts])
        value, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
        if not np.isnan(value) and len(drawn):
            low, high = np.percentile(drawn, (2.5, 97.5))
            found[name] = ImageDifference(value, float(low), float(high), len(drawn))
    return found


def _mean(columns: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.mean([column[name] for column in columns], axis=0) for name in columns[0]}
