"""The files of infra/ as plain values: what several tests of them read."""

import re
import shlex
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.places import REPOSITORY

INFRA = REPOSITORY / "infra"
K8S = INFRA / "k8s"

Manifest = dict[str, Any]


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def compose() -> dict[str, Any]:
    found: dict[str, Any] = load(INFRA / "compose.yaml")
    return found


def example_variables() -> dict[str, str]:
    """The variables of .env.example and their values."""
    lines = (INFRA / ".env.example").read_text(encoding="utf-8").splitlines()
    pairs = (tuple(line.split("=", 1)) for line in lines if line and not line.startswith("#"))
    return dict(pairs)


def filled(value: Any, variables: dict[str, str]) -> Any:
    """`${NAME}`, `${NAME:-default}` and `${NAME:?message}` as Compose fills them in."""
    if isinstance(value, dict):
        return {name: filled(part, variables) for name, part in value.items()}
    if isinstance(value, list):
        return [filled(part, variables) for part in value]
    if not isinstance(value, str):
        return value

    def one(match: "re.Match[str]") -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        assert kind == ":-", f"{name} is needed: {rest}"
        return str(rest)

    return re.sub(r"\$\{(\w+)(:[-?])([^}]*)\}", one, value)


@cache
def instructions() -> tuple[tuple[str, str], ...]:
    """The Dockerfile's instructions, continuation lines joined, comments left out."""
    text = (INFRA / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ")
    pairs = (line.split(None, 1) for line in whole.splitlines() if line.strip())
    return tuple((word, " ".join(rest.split())) for word, rest in pairs)


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, each beginning with its FROM; what stands before is left."""
    found: list[list[tuple[str, str]]] = []
    for word, rest in instructions():
        if word == "FROM":
            found.append([])
        if found:
            found[-1].append((word, rest))
    return found


def copies(stage: list[tuple[str, str]]) -> list[tuple[list[str], str]]:
    """Sources and destination of each COPY from the build's context."""
    found = []
    for word, rest in stage:
        if word == "COPY" and not rest.startswith("--from="):
            *sources, target = shlex.split(rest)
            found.append((sources, target))
    return found


def render(folder: Path) -> list[Manifest]:
    """What `kubectl apply -k FOLDER` would send, as far as these files use kustomize.

    Knows resources, namespace, images (newTag) and JSON patches with one target each.
    """
    plan = load(folder / "kustomization.yaml")
    assert plan["apiVersion"] == "kustomize.config.k8s.io/v1beta1"
    assert plan["kind"] == "Kustomization"
    known = {"apiVersion", "kind", "namespace", "resources", "images", "patches"}
    assert plan.keys() <= known
    found: list[Manifest] = []
    for name in plan["resources"]:
        place = (folder / name).resolve()
        if place.is_dir():
            found += render(place)
        else:
            found += [each for each in yaml.safe_load_all(place.read_text()) if each]
    for patch in plan.get("patches", []):
        (target,) = [each for each in found if is_target(each, patch["target"])]
        for step in load(folder / patch["path"]):
            apply_step(target, step)
    for each in found:
        if "namespace" in plan and each["kind"] != "Namespace":
            each["metadata"]["namespace"] = plan["namespace"]
        for image in plan.get("images", []):
            retag(each, image["name"], image["newTag"])
    return found


def is_target(manifest: Manifest, target: dict[str, str]) -> bool:
    group, _, version = manifest["apiVersion"].rpartition("/")
    facts = {
        "group": group,
        "version": version,
        "kind": manifest["kind"],
        "name": manifest["metadata"]["name"],
    }
    return all(facts[name] == value for name, value in target.items())


def apply_step(manifest: Manifest, step: dict[str, Any]) -> None:
    """One step of a JSON patch (RFC 6902); what it changes must be there."""
    *parents, last = [part.replace("~1", "/") for part in step["path"].split("/")[1:]]
    at: Any = manifest
    for part in parents:
        at = at[int(part)] if isinstance(at, list) else at[part]
    assert last in at, step["path"]
    if step["op"] == "remove":
        del at[last]
    else:
        assert step["op"] == "replace"
        at[last] = deepcopy(step["value"])


def retag(value: Any, name: str, tag: str) -> None:
    """Give every image of this name its tag."""
    if isinstance(value, dict):
        image = value.get("image")
        if isinstance(image, str) and image.partition(":")[0] == name:
            value["image"] = f"{name}:{tag}"
        for part in value.values():
            retag(part, name, tag)
    elif isinstance(value, list):
        for part in value:
            retag(part, name, tag)


def pod_templates(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Every pod template by name; Ray's with the labels that KubeRay adds."""
    found: dict[str, Manifest] = {}
    for each in manifests:
        spec, name = each.get("spec", {}), each["metadata"]["name"]
        if each["kind"] in ("Deployment", "StatefulSet"):
            found[name] = spec["template"]
        if each["kind"] == "RayCluster":
            groups = [("head", spec["headGroupSpec"])]
            groups += [("worker", group) for group in spec["workerGroupSpecs"]]
            for kind, group in groups:
                template = deepcopy(group["template"])
                labels = template["metadata"]["labels"]
                labels |= {"ray.io/cluster": name, "ray.io/node-type": kind}
                found[f"ray-{kind}"] = template
    return found


def containers(template: Manifest) -> list[Manifest]:
    found: list[Manifest] = template["spec"]["containers"]
    return found
