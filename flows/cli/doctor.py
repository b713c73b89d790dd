"""`thyro doctor`: what works on this machine, and the cure for what does not."""

from rich.markup import escape

from flows.cli.console import say
from flows.cli.options import StoreUrl
from thyro_core.errors import ThyroError, amount

_MARKS = {"ok": "[green]ok[/]  ", "warn": "[yellow]note[/]", "fail": "[red]FAIL[/]"}


def doctor(store: StoreUrl = None) -> None:
    """Say what works here (Python, torch, GPU, Ray, store, weights), and the cure for the rest."""
    from flows.cli.probes import examine
    from thyro_core.settings import Settings

    settings = Settings()
    failures = 0
    for finding in examine(store or settings.store, settings.weights):
        say(f"{_MARKS[finding.state]} {finding.name}: {escape(finding.detail)}")
        failures += finding.state == "fail"
    if failures:
        msg = f"{amount(failures, 'part')} did not work; the lines marked FAIL say the cure"
        raise ThyroError(msg)
