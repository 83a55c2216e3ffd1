"""The house that the package is built as: imports go one way, downwards, and every file is short."""
import ast
import re
from collections import defaultdict
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / 'kd_det'
LAYERS = (
    'kd_det', 'setup', 'registration', '__main__', 'cli',
    'workflow', 'chain doctor doctor_training export mydata pseudo recording study visualize', 'compare',
    'engine', 'detectors', 'terms', 'sources', 'plain',
    'config heads losses', 'assignment channels', 'backbones',
    'adapters compat config_keys config_types datasets own_data shipped weights',
    'arguments build config_difference files random_state tap training_only version', 'errors')
"""From the top down: folders and modules of the package; those of one layer do not import each other."""
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
LATE = {
    'kd_det.__main__': 'the doctor starts on broken installations',
    'kd_det.setup': 'MMDetection may be imported when the stack is prepared',
    'kd_det.registration': 'the same',
    'kd_det.compat.ext': 'ops are served when somebody imports them',
    'kd_det.datasets.make_digits': 'OpenCV may be missing, which is said in words',
}
"""Modules that import others of the package inside functions, and why."""


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob('*.py'):
        parts = ('kd_det', *path.relative_to(PACKAGE).with_suffix('').parts)
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


MODULES = modules()


def imported(name: str, node: ast.Import | ast.ImportFrom) -> set[str]:
    """The modules of the package that a statement in the module ``name`` imports."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in MODULES}
    base = node.module or ''
    if node.level:
        package = name.split('.') if MODULES[name].name == '__init__.py' else name.split('.')[:-1]
        base = '.'.join([*package[:len(package) - node.level + 1], *([node.module] if node.module else [])])
    found = {f'{base}.{alias.name}' if f'{base}.{alias.name}' in MODULES else base for alias in node.names}
    return {one for one in found if one in MODULES}


def statements(tree: ast.AST) -> dict[ast.stmt, bool]:
    """Import statements, and whether each stands inside a function."""
    found = {}

    def look(node: ast.AST, inside: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.Import, ast.ImportFrom)):
                found[child] = inside
            look(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))
    look(tree, False)
    return found


IMPORTS: defaultdict[str, set[str]] = defaultdict(set)
INSIDE: set[str] = set()
for _name, _path in MODULES.items():
    for _node, _inside in statements(ast.parse(_path.read_text(encoding='utf-8'))).items():
        _targets = imported(_name, _node)
        IMPORTS[_name] |= _targets
        if _inside and _targets:
            INSIDE.add(_name)


def room(name: str) -> str:
    return name.split('.')[1] if '.' in name else name


def test_the_graph_is_read():
    """A check of the check: known imports of every form are found."""
    assert {'kd_det.terms.hint', 'kd_det.errors', 'kd_det.detectors.combined'} <= (
        IMPORTS['kd_det.terms'] | IMPORTS['kd_det.detectors.distiller'])
    assert 'kd_det.compat' in IMPORTS['kd_det.setup'] and 'kd_det.assignment.criteria' in IMPORTS['kd_det.registration']
    assert len(MODULES) > 200 and not IMPORTS['kd_det.errors']


def test_imports_go_downwards():
    unknown = {room(name) for name in MODULES} ^ set(RANK)
    assert not unknown, f'give them a layer: {unknown}'
    upwards = [f'{name} imports {other}' for name, others in IMPORTS.items() for other in others
               if room(name) != room(other) and RANK[room(name)] >= RANK[room(other)]]
    assert not upwards, upwards


def test_no_circle_of_modules():
    """Also none that an import inside a function hides."""
    left = {name: others - {name} for name, others in IMPORTS.items()}
    while leaves := [name for name in left if not left[name] & set(left)]:
        for name in leaves:
            del left[name]
    assert not left, f'a circle among {sorted(left)}'


def test_imports_inside_functions_have_a_reason():
    assert set(LATE) == INSIDE


def test_no_file_is_longer_than_300_lines():
    lengths = {name: len(path.read_text(encoding='utf-8').splitlines()) for name, path in MODULES.items()}
    assert not {name: count for name, count in lengths.items() if count > 300}


def test_code_in_docstrings_stands_in_double_backticks():
    """What ruff does not look at; layout and sections are its part (``ruff.toml``)."""
    single = re.compile(r'(?<![`:\w])`(?!`)[^`\n]+`(?![`_\w])')
    assert single.search('as `x` is') and not single.search('as ``x`` is, :func:`x`, `x`_')
    found = []
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                found += [f'{name}: {one}' for one in single.findall(ast.get_docstring(node) or '')]
    assert not found
