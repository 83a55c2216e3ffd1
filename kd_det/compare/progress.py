"""How far a running command is, by the log that its output goes to."""
import os.path as osp
import re

_TAIL = 20_000  # bytes


def last_progress(log: str, since: int = 0) -> str:
    """Epoch, iteration and remaining time as MMEngine's last line of the log says them; 'starting' before the first.

    Args:
        log (str): the file.
        since (int): bytes of it that were there before, of an earlier run.
    """
    with open(log, 'rb') as file:
        file.seek(max(osp.getsize(log) - _TAIL, since))
        text = file.read().decode('utf-8', 'replace')
    found = re.findall(r'Epoch\((\w+)\)\s+(\[\d+\](?:\[\s*\d+/\d+\])?).*?eta: (\d+ days?, \S+|\S+)', text)
    return '{} {} eta {}'.format(*found[-1]).replace('[ ', '[') if found else 'starting'


def tail(log: str, lines: int = 12, since: int = 0) -> str:
    """The last lines of a log, indented; of what stands behind its first ``since`` bytes."""
    with open(log, 'rb') as file:
        file.seek(since)
        text = file.read().decode('utf-8', 'replace')
    return '\n'.join('    ' + line for line in text.splitlines()[-lines:])
