"""What holds for the tree as a whole: pinned versions, forbidden constructs, docstrings, and the one rule about time.

Layers are not tested here; `make check` holds them by import-linter.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("data", "encoders", "fusion", "pipelines")
FOLDERS = (*PACKAGES, "tests", "benchmarks", ".ci")
MODULES = sorted(path.relative_to(ROOT).as_posix() for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

ORDERINGS = {"<", "<=", ">", ">=", "less", "less_equal", "greater", "greater_equal", "lt", "le", "gt", "ge"}
PICKLERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def parse(module: str) -> ast.Module:
    return ast.parse((ROOT / module).read_text(encoding="utf-8"), module)


def normalised(requirement: str) -> str:
    """The distribution's name as pip compares it: `Foo_bar[x]>=1` is `foo-bar`."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, f"no distribution name in {requirement!r}"
    return re.sub(r"[-_.]+", "-", name[0]).lower()


# constraints.txt


def constraint_lines() -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def test_constraints_pin_every_direct_dependency_and_nothing_else() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = (project["dependencies"], *extras.values())
    direct = {normalised(line) for lines in installed for line in lines}
    assert {normalised(line) for line in constraint_lines()} == direct - {project["name"]}


def test_constraints_are_sorted_exact_versions_without_a_source() -> None:
    lines = constraint_lines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert [normalised(line) for line in lines] == sorted(normalised(line) for line in lines)


def test_no_file_but_prose_names_a_package_registry() -> None:
    hosts = [".".join(parts) for parts in (("pypi", "org"), ("files", "pythonhosted"), ("download", "pytorch"))]
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name not in {"README.md", ".git"}]
    files += [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    texts = {path: path.read_text(encoding="utf-8", errors="ignore") for path in files}
    assert [(path.name, host) for path, text in texts.items() for host in hosts if host in text] == []


# The four packages


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {Path(module).parent for module in MODULES}
    assert [folder for folder in sorted(folders) if not (ROOT / folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("module", MODULES)
def test_module_says_what_it_is(module: str) -> None:
    assert ast.get_docstring(parse(module)), f"{module} has no docstring"


def forbidden(node: ast.AST) -> str | None:
    """Which construct that runs somebody else's code `node` is, if any."""
    match node:
        case ast.Import(names=names) if PICKLERS & {alias.name.split(".")[0] for alias in names}:
            return "pickle"
        case ast.ImportFrom(module=str(module)) if module.split(".")[0] in PICKLERS:
            return "pickle"
        case ast.Attribute(attr="read_pickle" | "to_pickle") | ast.keyword(arg="allow_pickle"):
            return "pickle"
        case ast.keyword(arg="trust_remote_code", value=ast.Constant(value=False)):
            return None
        case ast.keyword(arg="trust_remote_code") | ast.Constant(value="trust_remote_code"):
            return "trust_remote_code"
        # Left out, transformers asks on a terminal whether to run what lies beside the weights.
        case ast.Call(func=ast.Attribute(value=ast.Name(id=str(auto)), attr="from_pretrained"), keywords=given) if (
            auto.lower().startswith("auto") and "trust_remote_code" not in {word.arg for word in given}
        ):
            return "trust_remote_code not denied"
        case ast.keyword(arg="weights_only", value=ast.Constant(value=False)):
            return "weights_only=False"
        case ast.Attribute(value=ast.Name(id="yaml"), attr="load" | "unsafe_load" | "full_load"):
            return "yaml.load"
    return None


@pytest.mark.parametrize("module", MODULES)
def test_module_runs_nobody_elses_code(module: str) -> None:
    found = [(node.lineno, what) for node in ast.walk(parse(module)) if (what := forbidden(node))]  # type: ignore[attr-defined]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "frame.to_pickle(path)",
        "np.load(path, allow_pickle=True)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "AutoModel.from_pretrained(name)",
        "torch.load(path, weights_only=False)",
        "yaml.load(text)",
    ],
)
def test_a_forbidden_construct_is_found(source: str) -> None:
    assert any(forbidden(node) for node in ast.walk(ast.parse(source)))


# The one rule about time: available_at and decision_at are compared in data/asof.py only


def words(node: ast.AST) -> Iterator[str]:
    """Every name, attribute and string under `node`."""
    for child in ast.walk(node):
        match child:
            case ast.Name(id=word) | ast.Attribute(attr=word) | ast.Constant(value=str(word)):
                yield word


def is_literal_string(node: ast.expr) -> bool:
    """Whether `node` is a literal string, which as a statement is a docstring."""
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def orders(node: ast.AST) -> bool:
    """Whether `node` orders its operands: an operator, a call such as `less_equal`, a filter tuple, or SQL."""
    match node:
        case ast.Compare(ops=ops):
            return any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in ops)
        case ast.Call(func=ast.Attribute(attr=name) | ast.Name(id=name)):
            return name in ORDERINGS | {"searchsorted", "between"}
        case ast.Tuple(elts=[_, ast.Constant(value=str(operator)), _]):
            return operator in ORDERINGS
        case ast.Constant(value=str()) | ast.JoinedStr():
            return re.search(r"available_at\s*[<>]|[<>]=?\s*\S*available_at", ast.unparse(node)) is not None
    return False


def compares_by_hand(tree: ast.AST) -> list[int]:
    """Lines that order what is available against a decision."""
    docstrings = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and is_literal_string(node.value)
    }
    return [
        node.lineno  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if id(node) not in docstrings
        and orders(node)
        and any("available" in word for word in words(node))
        and any("decision" in word for word in words(node))
    ]


@pytest.mark.parametrize("module", [module for module in MODULES if module != "data/asof.py"])
def test_what_is_known_is_decided_in_asof_alone(module: str) -> None:
    assert compares_by_hand(parse(module)) == [], f"{module} compares available_at itself; call data.asof"


@pytest.mark.parametrize(
    "source",
    [
        "row.available_at <= decision_at",
        "frame['available_at'] > frame['decision_at']",
        "decisions[0] >= available.max()",
        "pc.less_equal(pc.field('available_at'), decision)",
        "np.searchsorted(decisions, available)",
        "read(filters=[('available_at', '<=', decision_at)])",
        "query('available_at <= decision_at')",
        "query(f'available_at <= {decision_at}')",
    ],
)
def test_a_comparison_by_hand_is_found(source: str) -> None:
    assert compares_by_hand(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "known(available_at, decision_at)",
        "a.available_at == b.available_at",
        "published_at <= available_at",
        "'''available_at <= decision_at'''",
    ],
)
def test_what_is_no_comparison_by_hand_passes(source: str) -> None:
    assert not compares_by_hand(ast.parse(source))
