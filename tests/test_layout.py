"""The rules of the tree, proved on the syntax trees of every module."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREES = ("embodied_reward", "envs", "policies")

# package -> the packages it may import; what stands nowhere here may import nothing of ours.
BASE = {"types", "errors", "config", "files", "weights"}
ALLOWED = {
    "types": set(),
    "errors": set(),
    "files": set(),
    "config": {"errors"},
    "weights": {"errors", "files"},
    "math": {"types", "errors"},
    "data": BASE | {"math"},
    "labelling": BASE | {"data"},
    "vision": BASE | {"math"},
    "scoring": BASE | {"math", "data", "vision"},
    "rewards": BASE | {"math", "data", "vision", "scoring"},
    "shaping": BASE | {"math", "data", "vision", "scoring", "rewards"},
    "metrics": BASE | {"math", "data", "vision", "scoring", "rewards"},
    "report": BASE | {"math", "data", "vision", "scoring", "rewards", "metrics"},
    "training": BASE | {"math", "data", "vision", "scoring", "rewards", "shaping", "metrics"},
    "lerobot_plugin": BASE | {"math", "data", "vision", "scoring", "rewards", "shaping"},
    "envs": {"types", "errors", "math"},
    "policies": BASE | {"math", "data", "training"},
}
ALLOWED["cli"] = set(ALLOWED)
MAX_FUNCTION, MAX_FILE = 50, 400


def modules():
    files = [f for tree in TREES for f in sorted((ROOT / tree).rglob("*.py"))]
    assert len(files) > 50
    return files


def tree_of(path):
    return ast.parse(path.read_text(), filename=str(path))


def name_of(path):
    """`envs/x.py` is the module `embodied_reward.envs.x`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "embodied_reward" else ("embodied_reward", *parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def package_of(name):
    return name[1] if len(name) > 1 else ""


def imported(path):
    """Every dotted module name of ours that a file imports, at any depth, types included."""
    name = name_of(path)
    folder = name if path.name == "__init__.py" else name[:-1]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = folder[: len(folder) - node.level + 1] if node.level else ()
            base += tuple((node.module or "").split(".")) if node.module else ()
            yield base
            yield from ((*base, alias.name) for alias in node.names)


def edges():
    found = set()
    for path in modules():
        source = package_of(name_of(path))
        targets = {n[1] for n in imported(path) if n[:1] == ("embodied_reward",) and len(n) > 1}
        known = set(ALLOWED) & targets
        found |= {(source, target, path) for target in known if target != source}
    return found


def calls(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def docstring_lines(node):
    """The style asks for long docstrings, so they do not count as length."""
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return (first.end_lineno or 0) - first.lineno + 1


def test_imports_point_one_way():
    wrong = [
        f"{path.relative_to(ROOT)}: {source} may not import {target}"
        for source, target, path in edges()
        if target not in ALLOWED[source]
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_no_two_packages_import_each_other():
    pairs = {(a, b) for a, b, _ in edges()}
    assert not [(a, b) for a, b in pairs if (b, a) in pairs]
    # The rule itself must be free of cycles, or the test above proves little.
    assert not [(a, b) for a in ALLOWED for b in ALLOWED[a] if a != b and a in ALLOWED[b]]


def test_the_detector_sees_relative_and_nested_imports(tmp_path, monkeypatch):
    (tmp_path / "envs").mkdir()
    (tmp_path / "envs" / "x.py").write_text(
        "from .y import z\ndef f():\n    from embodied_reward import rewards\n"
    )
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    names = set(imported(tmp_path / "envs" / "x.py"))
    assert ("embodied_reward", "envs", "y") in names
    assert ("embodied_reward", "rewards") in names


def test_every_folder_has_its_place_in_the_rule_and_in_the_wheel():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {name_of(f) for f in modules() if f.name == "__init__.py"}
    assert {".".join(f) for f in folders} == set(listed) - {"embodied_reward.configs"}
    assert {package_of(name_of(f)) for f in modules()} - {""} == set(ALLOWED)


def test_functions_and_files_are_short():
    wrong = []
    for path in modules():
        lines = len(path.read_text().splitlines())
        if lines > MAX_FILE:
            wrong.append(f"{path.relative_to(ROOT)}: {lines} lines")
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)
                if length > MAX_FUNCTION:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {length}")
    assert not wrong, "\n".join(wrong)


def test_no_file_is_a_drawer_for_everything():
    drawers = {"utils.py", "util.py", "helpers.py", "misc.py", "common.py"}
    assert not [f for f in modules() if f.name in drawers]


FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "torch.save",
    "pickle.load",
    "pickle.loads",
    "joblib.load",
    "yaml.load",
    "yaml.unsafe_load",
    "os.system",
}
FORBIDDEN_MODULES = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def test_nothing_read_from_disk_can_run_code():
    wrong = []
    for path in modules():
        tree = tree_of(path)
        where = path.relative_to(ROOT)
        wrong += [f"{where}: {name}" for name, _ in calls(tree) if name in FORBIDDEN_CALLS]
        wrong += [f"{where}: import {n[0]}" for n in imported(path) if n[0] in FORBIDDEN_MODULES]
        for name, node in calls(tree):
            flags = {k.arg: k.value for k in node.keywords}
            for flag in ("allow_pickle", "shell", "trust_remote_code"):
                value = flags.get(flag)
                if value is not None and ast.unparse(value) != "False":
                    wrong.append(f"{where}: {name}({flag}={ast.unparse(value)})")
    assert not wrong, "\n".join(wrong)


def test_no_object_crosses_a_process_border_as_a_pickle():
    """Queues, pipes and managers of `multiprocessing` pickle; transports carry bytes."""
    wrong = [
        f"{path.relative_to(ROOT)}: import {'.'.join(n)}"
        for path in modules()
        if package_of(name_of(path)) == "scoring"
        for n in imported(path)
        if n[:1] == ("multiprocessing",) or n[:3] == ("concurrent", "futures", "process")
    ]
    assert not wrong, "\n".join(wrong)


def test_only_the_command_line_prints():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in modules()
        if package_of(name_of(path)) != "cli"
        for name, node in calls(tree_of(path))
        if name == "print"
    ]
    assert not wrong, "\n".join(wrong)


# Drawing from a global generator; saving and restoring its state for third parties is no draw.
GLOBAL_RNG = re.compile(
    r"^(np|numpy)\.random\.(?!default_rng|Generator|SeedSequence|PCG64|Philox|[gs]et_state)\w+$"
    r"|^random\.(?!Random|[gs]etstate)\w+$"
)


def test_random_numbers_come_from_explicit_generators():
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in modules()
        if path.name != "seeding.py"  # seeds the global ones for third parties
        for name, node in calls(tree_of(path))
        if GLOBAL_RNG.match(name)
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["envs", "policies"])
def test_importing_a_top_level_folder_is_refused_with_the_right_name(name, monkeypatch):
    import importlib

    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=f"write `import embodied_reward.{name}`"):
        importlib.import_module(name)


def test_no_path_of_this_machine_is_committed():
    home = str(Path.home())
    needles = [n for n in (str(ROOT), home) if len(n) > 5]
    wrong = [str(f) for f in modules() if any(n in f.read_text() for n in needles)]
    assert not wrong
