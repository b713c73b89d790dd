"""The pages' one Jinja environment: markup is escaped, and an unknown name is an error."""

from functools import cache
from importlib.resources import files

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("thyro_core", "reporting/templates"),
        # All but text for a paper (`.md`), which is no markup.
        autoescape=select_autoescape(disabled_extensions=("md",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_page(template: str, **values: object) -> str:
    """A page.

    Args:
        template: name of a file in `reporting/templates`.
        values: the template's variables.

    Raises:
        TemplateError: the template is unknown or damaged, or lacks a variable.
    """
    return _environment().get_template(template).render(values)


@cache
def template_text(name: str) -> str:
    """A file in `reporting/templates` as it stands: a style or a script that a page holds."""
    return files("thyro_core").joinpath("reporting", "templates", name).read_text("utf-8")
