"""A tracking server of MLflow, by its documented REST interface; no package of MLflow is needed."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from thyro_core.errors import InputError, StoreError
from thyro_core.store.retry import RetriesExhaustedError, RetryPolicy
from thyro_core.urls import redact

_API = "/api/2.0/mlflow"
_ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
_TIMEOUT = httpx.Timeout(30.0, read=300.0, write=300.0)
# The server's own limits of one call.
_METRICS_A_CALL, _PARAMS_A_CALL = 500, 100
_LONGEST_PARAM = 500
_RUNS_A_PAGE = 1000
_ATTEMPTS = 4


@dataclass(frozen=True)
class Measurement:
    """A metric at a step; it is finite."""

    key: str
    value: float
    step: int = 0


@dataclass(frozen=True)
class TrackedRun:
    """A run of the server."""

    run_id: str
    folder: str
    """Of its artifacts, on the server."""
    status: str


class _ServerBusyError(Exception):
    """An answer that may be another one a moment later."""


@dataclass
class TrackingServer:
    """A server at work; to be closed.

    Attributes:
        address: http or https, without user and password, which are taken from
            MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN.
    """

    address: str
    _client: httpx.Client = field(init=False, repr=False)
    _policy: RetryPolicy = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse an address that is none, or that holds a secret."""
        parts = urlsplit(self.address)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            msg = (
                f"{redact(self.address)}: expected the address of an MLflow server such as "
                "http://127.0.0.1:5000, found none; folders and databases are not written to: "
                "start `mlflow server` on them"
            )
            raise InputError(msg)
        if "@" in parts.netloc or parts.query or parts.fragment:
            msg = (
                f"{redact(self.address)}: expected an address without user, password and query; "
                "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
                "MLFLOW_TRACKING_TOKEN"
            )
            raise InputError(msg)
        token, user = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("TOKEN", "USERNAME"))
        self._client = httpx.Client(
            base_url=self.address.rstrip("/"),
            timeout=_TIMEOUT,
            headers={"Authorization": f"Bearer {token}"} if token else {},
            auth=(user, os.environ.get("MLFLOW_TRACKING_PASSWORD", "")) if user else None,
        )
        self._policy = RetryPolicy(
            attempts=_ATTEMPTS,
            retry_on=lambda error: isinstance(error, httpx.TransportError | _ServerBusyError),
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def experiment(self, name: str) -> str:
        """The id of an experiment, which is made if there is none.

        Raises:
            InputError: the server refuses.
            StoreError: it does not answer.
        """
        reply = self._call(
            "GET", f"{_API}/experiments/get-by-name", params={"experiment_name": name}, missing=True
        )
        if reply is None:
            reply = self._call("POST", f"{_API}/experiments/create", json={"name": name}) or {}
            return str(reply["experiment_id"])
        return str(reply["experiment"]["experiment_id"])

    def find_runs(self, experiment: str, tag: str, value: str) -> list[TrackedRun]:
        """The runs of an experiment that have a tag with this value.

        Args:
            experiment: its id.
            tag: name of the tag.
            value: without quotation marks.
        """
        query = {
            "experiment_ids": [experiment],
            "filter": f"tags.`{tag}` = '{value}'",
            "max_results": _RUNS_A_PAGE,
        }
        reply = self._call("POST", f"{_API}/runs/search", json=query) or {}
        return [self._run(run["info"]) for run in reply.get("runs", ())]

    def create_run(self, experiment: str, name: str, tags: Mapping[str, str]) -> TrackedRun:
        """Begin a run.

        Args:
            experiment: id of its experiment.
            name: for people.
            tags: by name.

        Raises:
            InputError: the server does not pass artifacts on.
        """
        body = {
            "experiment_id": experiment,
            "run_name": name,
            "start_time": _now(),
            "tags": [{"key": key, "value": value} for key, value in tags.items()],
        }
        reply = self._call("POST", f"{_API}/runs/create", json=body) or {}
        return self._run(reply["run"]["info"])

    def log(
        self, run: TrackedRun, params: Mapping[str, str], metrics: Sequence[Measurement]
    ) -> None:
        """Write parameters and metrics of a run.

        Args:
            run: which.
            params: by name; longer ones are cut.
            metrics: any number.
        """
        now, items = _now(), list(params.items())
        for start in range(0, len(items), _PARAMS_A_CALL):
            some = items[start : start + _PARAMS_A_CALL]
            rows = [{"key": key, "value": value[:_LONGEST_PARAM]} for key, value in some]
            self._call(
                "POST", f"{_API}/runs/log-batch", json={"run_id": run.run_id, "params": rows}
            )
        for start in range(0, len(metrics), _METRICS_A_CALL):
            points = [
                {"key": each.key, "value": each.value, "step": each.step, "timestamp": now}
                for each in metrics[start : start + _METRICS_A_CALL]
            ]
            body = {"run_id": run.run_id, "metrics": points}
            self._call("POST", f"{_API}/runs/log-batch", json=body)

    def upload(self, run: TrackedRun, path: str, data: bytes) -> None:
        """Put a file beside a run.

        Args:
            run: which.
            path: below the run's artifacts.
            data: the file's bytes.
        """
        place = "/".join(quote(part) for part in f"{run.folder}/{path}".split("/"))
        self._call("PUT", f"{_ARTIFACTS}/{place}", content=data)

    def finish(self, run: TrackedRun) -> None:
        """Mark a run as finished: all of it is there."""
        body = {"run_id": run.run_id, "status": "FINISHED", "end_time": _now()}
        self._call("POST", f"{_API}/runs/update", json=body)

    def delete(self, run: TrackedRun) -> None:
        """Move a run to the server's trash."""
        self._call("POST", f"{_API}/runs/delete", json={"run_id": run.run_id})

    def _run(self, facts: Mapping[str, Any]) -> TrackedRun:
        parts = urlsplit(facts["artifact_uri"])
        if parts.scheme != "mlflow-artifacts":
            msg = (
                f"{redact(self.address)}: expected a server that takes files itself, found one "
                f"whose artifacts lie at {parts.scheme or 'a path'}; start it with "
                "--serve-artifacts (the default) and name another experiment"
            )
            raise InputError(msg)
        return TrackedRun(facts["run_id"], parts.path.strip("/"), facts["status"])

    def _call(
        self,
        method: str,
        path: str,
        *,
        missing: bool = False,
        **body: Any,  # noqa: ANN401 - as httpx's
    ) -> dict[str, Any] | None:
        """The server's answer; None: there is no such thing, where that may be."""

        def once() -> httpx.Response:
            reply = self._client.request(method, path, **body)
            if reply.status_code >= 500 or reply.status_code == 429:
                msg = f"status {reply.status_code}"
                raise _ServerBusyError(msg)
            return reply

        try:
            reply = self._policy.call(once, redact(self.address))
        except RetriesExhaustedError as exhaustion:
            msg = (
                f"{redact(self.address)}: expected an MLflow server to answer, found "
                f"{type(exhaustion.error).__name__} after {_ATTEMPTS} attempts; check the address "
                "and that `mlflow server` runs, then start the same command again"
            )
            raise StoreError(msg) from exhaustion
        if reply.status_code == 404 and missing:
            return None
        if reply.status_code >= 400:
            name = path.rsplit("/", maxsplit=1)[-1]
            words = {401: "who you are", 403: "who you are"}
            doubt = words.get(reply.status_code, "that this is an MLflow server of version 2 or 3")
            msg = (
                f"{redact(self.address)}: expected it to take {method} {name}, "
                f"found status {reply.status_code}; check {doubt} (MLFLOW_TRACKING_USERNAME and "
                "_PASSWORD, or _TOKEN)"
            )
            raise InputError(msg)
        return dict(reply.json()) if reply.content else {}


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)
