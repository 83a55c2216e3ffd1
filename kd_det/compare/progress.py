"""How far a running command is, by the log that its output goes to."""
import os.path as osp
import re

_TAIL = 20_000  # bytes
_LINES = 400


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


def last_said(log: str, since: int = 0) -> str:
    """The last line of a command's log that says what it is doing: one that ends in '...' or in the time that is left.

    What other packages print between them, tables above all, is no progress.
    """
    lines = [line.strip() for line in tail(log, _LINES, since).splitlines()]
    return next((line for line in reversed(lines) if line.endswith((' ...', ' left'))), 'starting')


def tail(log: str, lines: int = 12, since: int = 0) -> str:
    """The last lines of a log, indented; of what stands behind its first ``since`` bytes."""
    with open(log, 'rb') as file:
        file.seek(since)
        text = file.read().decode('utf-8', 'replace')
    return '\n'.join('    ' + line for line in text.splitlines()[-lines:])
