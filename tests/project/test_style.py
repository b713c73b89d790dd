"""The project's shape, measured: small functions, small files, documented, layered, quiet."""

import ast
import io
import re
import statistics
import subprocess
import sys
import tokenize
from collections.abc import Iterator
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
    assert code_lines("flows/cli/units.py") == 17
    assert imports("flows/observer.py") == {"contextvars", "thyro_core"}


def test_no_function_is_longer_than_fifty_lines() -> None:
    assert {name: lines for name, lines in ALL.items() if lines > 50} == {}


def test_functions_are_small_as_a_rule() -> None:
    lengths = sorted(ALL.values())
    longest = dict(sorted(ALL.items(), key=lambda item: -item[1])[:40])
    assert statistics.median(lengths) <= 8
    assert statistics.quantiles(lengths, n=10)[8] <= 27, longest


def test_no_file_is_longer_than_three_hundred_lines_of_code() -> None:
    assert {file: n for file in FILES if (n := code_lines(file)) > 300} == {}


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
    command, study, report, cluster = loaded(
        "flows.cli.main",
        "thyro_core.study.lifecycle",
        "thyro_core.reporting.report",
        "thyro_core.cluster.trainer",
    )
    heavy = {
        "torch", "torchvision", "ray", "prefect", "pyarrow", "pandas", "sklearn", "numpy", "fsspec",
        "pydantic",
    }  # fmt: skip
    assert command & heavy == set(), "`thyro --help` must come at once"
    assert study & {"torch", "torchvision", "ray", "prefect"} == set()
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
