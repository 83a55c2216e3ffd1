"""Write the table of pairs and methods into ``configs/README.md``, from the files of ``configs/`` alone.

    python tools/config_matrix.py            # writes between <!-- matrix --> and <!-- /matrix -->
    python tools/config_matrix.py --check    # exit status 1 where the page is not up to date

A pair is a student (what a config's name says before its method) and what teaches it (``teacher``, ``sources``,
``peer``); a method is a folder. Files are read as syntax, none is executed, so that it takes no second.
"""
import argparse
import ast
import re
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / 'configs'
PAGE = CONFIGS / 'README.md'
BEGIN, END = '<!-- matrix -->', '<!-- /matrix -->'
HEADS = {'distill_faster_rcnn': 'Chen et al.', 'lad': 'LAD, SoLAD', 'soft_label': 'soft label', 'colad': 'CoLAD',
         'pkd': 'PKD', 'cwd': 'CWD', 'fgd': 'FGD', 'mgd': 'MGD', 'bckd': 'BCKD', 'crosskd': 'CrossKD',
         'ld': 'LD', 'several_teachers': 'several', 'class_balanced': 'CBD',
         'unlabelled': 'pseudo-labels'}
"""How a folder is called at the head of its column; others by their own name."""
DATA = {'coco': 'COCO', 'voc': 'VOC', 'bccd': 'BCCD', 'digits': 'Digits', 'vehicles': 'Vehicles', 'lvis': 'LVIS'}
_SCHEDULE = re.compile(r'(?:.*-)?\d+[xe]|\d+xb\d+.*|ms-.*|sample.*')


@dataclass(frozen=True)
class Entry:
    """A shipped config: its file below configs/, and the stems of the configs of what teaches it."""
    name: str
    teachers: tuple[str, ...]

    @property
    def student(self) -> tuple[str, str]:
        """(architecture, data)."""
        return split(Path(self.name).stem)

    @property
    def method(self) -> str:
        return self.name.split('/')[0]


def entries() -> list[Entry]:
    """Every config that ships, in the order of their names."""
    found = []
    for path in sorted(CONFIGS.glob('*/*.py')):
        if path.parent.name != '_base_':
            found.append(Entry(path.relative_to(CONFIGS).as_posix(), tuple(teachers_of(path))))
    return found


def _assigned(path: Path) -> dict[str, ast.expr]:
    tree = ast.parse(path.read_text(encoding='utf-8'))
    return {target.id: node.value for node in tree.body if isinstance(node, ast.Assign)
            for target in node.targets if isinstance(target, ast.Name)}


def _bases(path: Path) -> list[str]:
    """What ``_base_`` names; none where it is computed."""
    node = _assigned(path).get('_base_')
    if node is None:
        return []
    value = ast.literal_eval(node)
    return [value] if isinstance(value, str) else list(value)


def _model(path: Path) -> dict[str, ast.expr]:
    """Keyword -> value of ``model = dict(...)``."""
    node = _assigned(path).get('model')
    return {word.arg: word.value for word in node.keywords if word.arg} if isinstance(node, ast.Call) else {}


def teachers_of(path: Path) -> list[str]:
    """Stems of the configs that a config's ``teacher``, ``sources`` or ``peer`` name, its bases' where it names none.
    """
    model = _model(path)
    found = [word.value.value for key in ('teacher', 'sources', 'peer') if key in model for node in ast.walk(model[key])
             if isinstance(node, ast.Call) for word in node.keywords
             if word.arg == 'config' and isinstance(word.value, ast.Constant)]
    if found:
        return [Path(name.split('::')[-1]).stem for name in found]
    for base in _bases(path):
        if '::' not in base and (path.parent / base).is_file() and (theirs := teachers_of(path.parent / base)):
            return theirs
    return []


def split(stem: str) -> tuple[str, str]:
    """(architecture, data) of a config named as MMDetection names them: {model}_{schedule}_{data}, then its method."""
    parts = stem.split('_')
    place = next((i for i, part in enumerate(parts) if i and _SCHEDULE.fullmatch(part)), len(parts) - 1)
    return '_'.join(parts[:place]), next((part for part in parts[place:] if part.startswith(tuple(DATA))), parts[-1])


def family(data: str) -> str:
    return next((name for start, name in DATA.items() if data.startswith(start)), data)


def table() -> str:
    """The text between the markers."""
    found = entries()
    distilled = [entry for entry in found if entry.teachers]
    lines = [f'{len(found)} configs: {len(found) - len(distilled)} plain detectors and {len(distilled)} that distil. A '
             'number says how many configs of a method there are for a pair.']
    by_family: dict[str, list[Entry]] = defaultdict(list)
    for entry in distilled:
        by_family[family(entry.student[1])].append(entry)
    for name in [*DATA.values(), *sorted(set(by_family) - set(DATA.values()))]:
        if name in by_family:
            lines += ['', *_table_of(name, by_family[name])]
    return '\n'.join(lines)


def _table_of(name: str, found: list[Entry]) -> list[str]:
    order = [*HEADS, *sorted({entry.method for entry in found} - set(HEADS))]
    methods = [method for method in order if any(entry.method == method for entry in found)]
    counts: dict[str, Counter] = defaultdict(Counter)
    for entry in found:
        counts[_pair(entry)][entry.method] += 1
    heads = [f'[{HEADS.get(method, method)}]({method})' for method in methods]
    lines = [f'| {name}: student <- teacher | ' + ' | '.join(heads) + ' |', '|-|' + '-:|' * len(methods)]
    return lines + [f'| {pair} | ' + ' | '.join(str(row[method] or '') for method in methods) + ' |'
                    for pair, row in sorted(counts.items())]


def _pair(entry: Entry) -> str:
    student, data = entry.student

    def shown(stem: str) -> str:
        architecture, own = split(stem)
        return f'`{architecture}`' + ('' if own == data else f' ({own})')
    plain = data if data not in DATA else ''
    return f'`{student}`' + (f' ({plain})' if plain else '') + ' <- ' + ', '.join(
        dict.fromkeys(shown(stem) for stem in entry.teachers))


def written(text: str) -> str:
    """The page with the table as it should be.

    Raises:
        SystemExit: the markers do not stand once each.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        sys.exit(f'{PAGE}: {BEGIN} and {END} must stand there once each')
    head, rest = text.split(BEGIN)
    return f'{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--check', action='store_true', help='only say whether the page is up to date')
    args = parser.parse_args()
    text = PAGE.read_text(encoding='utf-8')
    new = written(text)
    if args.check:
        if new != text:
            print(f'{PAGE}: the table is not up to date; run python tools/config_matrix.py', file=sys.stderr)
        return int(new != text)
    PAGE.write_text(new, encoding='utf-8')
    return 0


if __name__ == '__main__':
    sys.exit(main())
