"""How the command line's words become values: seeds, KEY=VALUE."""
import argparse

from mmengine.config import DictAction


class Options(DictAction):
    """``KEY=VALUE KEY=VALUE`` as a dict, MMEngine's way; a word without ``=`` is an error in words."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        without = [word for word in values if '=' not in word]
        if without:
            raise argparse.ArgumentError(self, f'{without[0]!r}: KEY=VALUE is expected, such as train_cfg.max_epochs=2')
        super().__call__(parser, namespace, values, option_string)


def seed(text: str) -> int:
    """'3' -> 3; what NumPy and PyTorch both take."""
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f'{text!r}: a whole number from 0 to 2^32 - 1 is expected')
    return int(text)
