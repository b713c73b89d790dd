"""The project's shape, measured: small functions, small files, documented, layered, quiet."""

import ast
import configparser
import io
import random
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

import pytest

from flows.cli.main import app
from tests.support.places import REPOSITORY

FILES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for package in ("thyro_core", "flows")
    for path in (REPOSITORY / package).rglob("*.py")
)

Function = ast.FunctionDef | ast.AsyncFunctionDef
Documented = Function | ast.ClassDef | ast.Module
_LAYOUT = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENDMARKER,
}  # fmt: skip


@cache
def source(file: str) -> str:
    return (REPOSITORY / file).read_text(encoding="utf-8")


@cache
def tree(file: str) -> ast.Module:
    return ast.parse(source(file))


def functions(file: str) -> Iterator[Function]:
    return (node for node in ast.walk(tree(file)) if isinstance(node, Function))


def body_lines(function: Function) -> int:
    """Lines from the first statement after the docstring to the end, comments and blanks too."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def code_lines(file: str) -> int:
    """Lines with code on them: not those of docstrings and comments, and not the blank ones."""
    text = source(file)
    found = {
        line
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type not in _LAYOUT
        for line in range(token.start[0], token.end[0] + 1)
    }
    for node in ast.walk(tree(file)):
        # Strings that stand alone: docstrings, of attributes too.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found -= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return len(found)


def names(file: str) -> dict[str, int]:
    return {
        f"{file}:{function.lineno} {function.name}": body_lines(function)
        for function in functions(file)
    }


def imports(file: str) -> set[str]:
    """Top-level names of all modules a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} imports relatively"
            found.add((node.module or "").split(".")[0])
    return found


ALL = {name: lines for file in FILES for name, lines in names(file).items()}


def test_the_measures_measure() -> None:
    (function,) = ast.parse(
        'def f():\n    """D\n\n    d."""\n    # c\n    a = 1\n\n    b = 2\n'
    ).body
    assert isinstance(function, ast.FunctionDef)
    assert body_lines(function) == 3
    assert len(FILES) > 30
    assert code_lines("flows/cli/units.py") == 15
    assert imports("flows/observer.py") == {"collections", "contextvars", "thyro_core"}


def test_no_function_is_longer_than_sixty_lines() -> None:
    assert {name: lines for name, lines in ALL.items() if lines > 60} == {}


def test_no_file_is_longer_than_three_hundred_lines_of_code() -> None:
    long = {file for file in FILES if code_lines(file) > 300}
    # Declarations: a list of all tables, or of all keys of a config, reads best in one place.
    assert long <= {"thyro_core/tables/schemas.py", "thyro_core/config/__init__.py"}


def commands() -> set[str]:
    """The functions that are commands: each option is a parameter."""
    callbacks = [command.callback for command in app.registered_commands]
    return {f"{c.__module__.replace('.', '/')}.py {c.__name__}" for c in callbacks if c}


def test_no_function_but_a_command_takes_more_than_six_arguments() -> None:
    def count(function: Function) -> int:
        plain = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        return sum(argument.arg not in {"self", "cls"} for argument in plain)

    many = {f"{file} {f.name}" for file in FILES for f in functions(file) if count(f) > 6}
    assert many - commands() == set()


def test_the_commands_are_known_by_file_and_name() -> None:
    assert "flows/cli/study.py study" in commands()
    assert commands() <= {f"{file} {f.name}" for file in FILES for f in functions(file)}


def room(file: str) -> str:
    """The package a file belongs to; a module beside the packages counts for itself."""
    return "/".join(file.split("/")[:2])


def excess(counts: Counter[str], bounds: dict[str, int]) -> dict[str, int]:
    """Counts above their bounds; a package without a bound has the bound 0."""
    return {name: count for name, count in counts.items() if count > bounds.get(name, 0)}


# Functions with more than four positional arguments: the bounds may only fall. Commands are exempt.
POSITIONAL = {
    "flows/screening.py": 2, "flows/study.py": 2, "thyro_core/datasets": 15,
    "thyro_core/evaluation": 1, "thyro_core/explain": 5, "thyro_core/registry": 5,
    "thyro_core/reporting": 7, "thyro_core/screening": 8, "thyro_core/study": 5,
    "thyro_core/tables": 2, "thyro_core/training": 8,
}  # fmt: skip


def takes_many_by_position(function: Function) -> bool:
    positional = [*function.args.posonlyargs, *function.args.args]
    return sum(argument.arg not in {"self", "cls"} for argument in positional) > 4


def test_beyond_four_arguments_are_passed_by_keyword() -> None:
    many = {
        f"{file} {f.name}" for file in FILES for f in functions(file) if takes_many_by_position(f)
    }
    counts = Counter(room(name.split()[0]) for name in many - commands())
    assert excess(counts, POSITIONAL) == {}, sorted(many)


@pytest.mark.parametrize(
    ("arguments", "many"),
    [("a, b, c, d", False), ("self, a, b, c, d", False), ("a, *, b, c, d, e", False),
     ("a, b, c, d, e", True), ("a, /, b, c, d, e", True)],
)  # fmt: skip
def test_arguments_are_counted_by_position(arguments: str, many: bool) -> None:
    (function,) = ast.parse(f"def f({arguments}): ...").body
    assert isinstance(function, ast.FunctionDef)
    assert takes_many_by_position(function) == many


def top_level_names(module: ast.Module) -> set[str]:
    """Names that a module defines; those it imports, and its dunders, are not its own."""
    names: set[str] = set()
    for node in module.body:
        if isinstance(node, Function | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            leaves = (leaf for target in targets for leaf in ast.walk(target))
            names |= {leaf.id for leaf in leaves if isinstance(leaf, ast.Name)}
    return {name for name in names if not name.startswith("__")}


def repeated(modules: Iterable[ast.Module]) -> tuple[set[str], float]:
    """The top-level names that stand in more than one module, and their share of all."""
    counts = Counter(name for module in modules for name in top_level_names(module))
    names = {name for name, count in counts.items() if count > 1}
    return names, len(names) / len(counts)


def test_a_top_level_name_stands_in_one_module() -> None:
    names, share = repeated(tree(file) for file in FILES)
    assert share <= 0.02, sorted(names)


def test_repeated_names_are_counted() -> None:
    texts = ("a = b = 1\nimport os\nclass C: ...", "a: int = 2\nimport os\ndef d(): e = 1")
    assert repeated(map(ast.parse, texts)) == ({"a"}, 1 / 4)


IRREGULAR = {
    "broken", "brought", "built", "chosen", "done", "drawn", "driven", "fed", "forbidden", "found",
    "frozen", "given", "gone", "held", "hidden", "kept", "known", "left", "lent", "lit", "lost",
    "made", "meant", "met", "paid", "said", "seen", "sent", "shown", "sold", "spent", "stolen",
    "taken", "taught", "thought", "thrown", "told", "torn", "won", "worn", "written",
}  # fmt: skip
# Nouns and adjectives that end like participles.
NO_PARTICIPLES = {"feed", "green", "naked", "need", "red", "seed", "speed"}

# What tables, stores, JSON and notebooks of earlier versions hold or read under these names.
STORED_NAMES = {
    ("thyro_core/registry/card.py", "calibrated"), ("thyro_core/registry/card.py", "referred"),
    ("thyro_core/screening/rules.py", "failed"), ("thyro_core/screening/rules.py", "received"),
    ("thyro_core/screening/rules.py", "rejected"), ("thyro_core/screening/rules.py", "scored"),
    ("thyro_core/study/status.py", "concluded"),
    ("thyro_core/store/lock.py", "kept"), ("thyro_core/screening/rules.py", "known"),
    ("thyro_core/study/records.py", "started"), ("thyro_core/study/records.py", "spent"),
    ("thyro_core/study/job.py", "trained"), ("thyro_core/study/job.py", "failed"),
    ("thyro_core/study/outcomes.py", "failed"), ("thyro_core/study/progress.py", "started"),
    ("thyro_core/study/progress.py", "updated"),
}  # fmt: skip

# The terms themselves, where no noun says as much.
TERMS = {
    "Versioned",  # bytes beside their version, as compare-and-swap takes and gives them
}


def is_participle(word: str) -> bool:
    has_form = re.fullmatch(r"[a-z]{2,}[a-z]ed", word) is not None or word in IRREGULAR
    return has_form and word not in NO_PARTICIPLES


def participles(module: ast.Module) -> Iterator[tuple[int, str]]:
    """Where a function, class, argument or variable has a bare participle as its name.

    `left` beside `right` or `top` is a side, and no participle.
    """
    words = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    words |= {node.arg for node in ast.walk(module) if isinstance(node, ast.arg)}
    sides = {"left"} if words & {"right", "top"} else set()
    for node in ast.walk(module):
        if isinstance(node, Function | ast.ClassDef | ast.ExceptHandler):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            name = node.id
        else:
            continue
        word = (name or "").strip("_").lower()
        if name and word not in sides and is_participle(word):
            yield node.lineno, name


def test_no_name_is_a_bare_participle() -> None:
    places = [
        (file, line, name)
        for file in FILES
        for line, name in participles(tree(file))
        if (file, name) not in STORED_NAMES and name not in TERMS
    ]
    assert places == []


def test_what_may_stay_a_participle_is_one() -> None:
    names = {(file, name) for file in FILES for _, name in participles(tree(file))}
    assert names >= STORED_NAMES
    assert {name for _, name in names} >= TERMS


def test_participles_are_recognised() -> None:
    text = (
        "found = 1\ndef _told(seen, found_rows):\n    for left in ():\n        print(found)\n"
        "class Known: ...\nfound_rows = found.left\n"
    )
    names = sorted(name for _, name in participles(ast.parse(text)))
    assert names == ["Known", "_told", "found", "left", "seen"]
    text = (
        "resized = 1\nfor hidden in (): ...\ndef _joined(seed, speed, embedding, found_rows): ..."
    )
    assert sorted(name for _, name in participles(ast.parse(text))) == [
        "_joined", "hidden", "resized",
    ]  # fmt: skip
    assert list(participles(ast.parse("left, right = 0, 1"))) == []


TEST_FILES = sorted(
    path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "tests").rglob("*.py")
)

GLOBAL_DRAWS = {("random", name) for name in dir(random) if name not in {"Random", "getstate"}}


def global_draws(module: ast.Module) -> list[int]:
    """Lines that take anything but the class `Random` from the module `random`."""
    lines = []
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            lines += [node.lineno for alias in node.names if alias.name != "Random"]
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            lines += [node.lineno] if (node.value.id, node.attr) in GLOBAL_DRAWS else []
    return sorted(lines)


def test_nothing_draws_from_the_global_generator() -> None:
    """A draw in a Hypothesis strategy cannot be replayed, and any seed of it would be shared."""
    files = [*FILES, *TEST_FILES]
    assert {file: lines for file in files if (lines := global_draws(tree(file)))} == {}


def test_global_draws_are_recognised() -> None:
    text = (
        "import random\nr = random.Random()\nr.random()\nrandom.random()\nfrom random import choice"
    )
    assert global_draws(ast.parse(text)) == [4, 5]


def public_without_docstring(node: Documented, where: str) -> Iterator[str]:
    if ast.get_docstring(node) is None:
        yield where
    if isinstance(node, Function):
        return  # what a function defines inside is its own affair
    for child in node.body:
        if isinstance(child, Documented) and not child.name.startswith("_"):
            yield from public_without_docstring(child, f"{where} {child.name}")


def test_every_public_name_is_documented() -> None:
    assert [name for file in FILES for name in public_without_docstring(tree(file), file)] == []


def test_nothing_is_printed_but_through_the_console() -> None:
    calls = {
        f"{file}:{node.lineno}"
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    }
    assert calls == set()


def is_broad(handler: ast.ExceptHandler) -> bool:
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    found = {getattr(kind, "id", "") for kind in kinds}
    if "Exception" in found:
        return True
    last = handler.body[-1]
    # Cleaning up on the way out, Ctrl-C included, is what BaseException is for.
    return "BaseException" in found and not (isinstance(last, ast.Raise) and last.exc is None)


def has_reason(handler: ast.ExceptHandler, lines: list[str]) -> bool:
    """Whether a comment says why a handler takes every `Exception`: beside it, above or below."""
    if not isinstance(handler.type, ast.Name) or handler.type.id != "Exception":
        return False  # nothing excuses a bare except, or a tuple that hides an Exception
    header = lines[handler.lineno - 1]
    around = [lines[handler.lineno - 2], *lines[handler.lineno : handler.body[0].lineno - 1]]
    beside = re.sub(
        r"# noqa: BLE001[ -]*", "# ", header.partition("#")[1] + header.partition("#")[2]
    )
    return any(re.match(r"\s*# *\S+ \S+ \S+", line) for line in [beside, *around])


def test_no_error_is_swallowed_unnamed() -> None:
    broad = {
        f"{file}:{node.lineno}"
        for file in FILES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
        if not has_reason(node, source(file).splitlines())
    }
    assert broad == set(), "say in a comment why every error ends here"


@pytest.mark.parametrize(
    ("handler", "excused"),
    [
        ("except Exception:", False),
        ("except Exception:  # noqa: BLE001", False),
        ("except Exception as e:  # noqa: BLE001 - the thread's result carries it", True),
        ("# A broken installation raises anything.\nexcept Exception:  # noqa: BLE001", True),
        ("except Exception:\n    # The worker reports it and goes on.", True),
        ("# Every error ends here.\nexcept:", False),
        ("# Every error ends here.\nexcept (OSError, Exception):", False),
        ("# Every error ends here.\nexcept BaseException:", False),
    ],
)
def test_a_broad_handler_needs_a_reason(handler: str, excused: bool) -> None:
    text = f"try:\n    pass\n{handler}\n    pass\n"
    (node,) = (n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.ExceptHandler))
    assert is_broad(node)
    assert has_reason(node, text.splitlines()) == excused


def test_importing_a_module_does_no_work() -> None:
    calls = {
        f"{file}:{node.lineno}"
        for file in FILES
        for node in tree(file).body
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    }
    assert calls == set()


ROOT = {"__init__", "config", "errors", "host", "logs", "pseudonyms", "settings", "types", "urls"}
LAYERS = [
    "cluster | reporting", "validation", "screening", "registry", "study", "explain",
    "datasets | evaluation",
    "tables | training | archive", "store | imaging", "host | logs | pseudonyms",
    "config | settings | errors | types | urls",
]  # fmt: skip


def test_the_root_of_the_core_holds_few_modules() -> None:
    names = {path.stem for path in (REPOSITORY / "thyro_core").glob("*.py")}
    assert names <= ROOT


def test_the_layers_are_few_and_name_every_package() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(REPOSITORY / ".importlinter", encoding="utf-8")
    layers = contracts["importlinter:contract:layers"]
    assert layers["type"] == "layers"
    assert layers["exhaustive"] == "True"
    assert layers["layers"].split("\n")[1:] == LAYERS


def test_prefect_is_imported_in_flows_alone() -> None:
    assert [f for f in FILES if "prefect" in imports(f) and not f.startswith("flows/")] == []


def test_ray_is_imported_in_the_cluster_package_alone() -> None:
    elsewhere = [f for f in FILES if not f.startswith("thyro_core/cluster/")]
    assert [f for f in elsewhere if "ray" in imports(f)] == []


def test_the_science_knows_no_flow() -> None:
    assert [f for f in FILES if f.startswith("thyro_core/") and "flows" in imports(f)] == []


def loaded(*modules: str) -> list[set[str]]:
    """Top-level modules of a fresh process, after each of the imports."""
    script = "import sys\n" + "".join(
        f"import {module}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))\n"
        for module in modules
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    return [set(line.split()) for line in done.stdout.splitlines()]


def test_the_process_that_leads_a_study_loads_no_torch() -> None:
    command, study, verify, report, cluster = loaded(
        "flows.cli.main",
        "thyro_core.study.lifecycle",
        "thyro_core.study.verify.verify",
        "thyro_core.reporting.report",
        "thyro_core.cluster.trainer",
    )
    heavy = {
        "torch", "torchvision", "ray", "prefect", "pyarrow", "pandas", "sklearn", "numpy", "fsspec",
        "pydantic",
    }  # fmt: skip
    assert command & heavy == set(), "`thyro --help` must come at once"
    assert study & {"torch", "torchvision", "ray", "prefect"} == set()
    assert verify & {"torch", "torchvision", "ray", "prefect"} == set(), "promotion verifies too"
    assert report & {"torch", "torchvision", "ray", "prefect"} == set()
    assert cluster & {"torch", "torchvision", "prefect"} == set()
    assert "ray" in cluster


@pytest.mark.slow
def test_the_flow_loads_no_torch() -> None:
    (flow,) = loaded("flows.study")
    assert "prefect" in flow
    assert flow & {"torch", "torchvision", "ray"} == set()


def test_training_runs_without_ray_prefect_and_settings() -> None:
    for found in loaded(
        "thyro_core.training.batches", "thyro_core.training.inference", "thyro_core.training.loop"
    ):
        assert "torch" in found
        assert found & {"ray", "prefect", "pydantic_settings", "flows"} == set()
