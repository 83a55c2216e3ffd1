"""How far a running command is, by the log that its output goes to."""
import os.path as osp
import re

_TAIL = 20_000  # bytes


def last_progress(log: str) -> str:
    """Epoch, iteration and remaining time as MMEngine's last line of the log says them; 'starting' before the first."""
    with open(log, 'rb') as file:
        file.seek(max(osp.getsize(log) - _TAIL, 0))
        text = file.read().decode('utf-8', 'replace')
    found = re.findall(r'Epoch\((\w+)\)\s+(\[\d+\](?:\[\s*\d+/\d+\])?).*?eta: (\d+ days?, \S+|\S+)', text)
    return '{} {} eta {}'.format(*found[-1]).replace('[ ', '[') if found else 'starting'


def tail(log: str, lines: int = 12) -> str:
    """The last lines of a log, indented."""
    with open(log, encoding='utf-8', errors='replace') as file:
        return '\n'.join('    ' + line for line in file.read().splitlines()[-lines:])
