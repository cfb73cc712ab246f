"""What infra/, prefect.yaml and the packaging say must agree, and must not be careless. Nothing here needs a daemon."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

PROJECT = Path(__file__).resolve().parent.parent
INFRA = PROJECT / "infra"
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
MANIFESTS = sorted((INFRA / "kubernetes").glob("*.yaml"))


def documents(path: Path) -> list[dict]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def containers(path: Path) -> list[dict]:
    pods = [d["spec"]["template"]["spec"] for d in documents(path) if "template" in d.get("spec", {})]
    return [c for pod in pods for c in pod["containers"] + pod.get("initContainers", [])]


def compose() -> dict:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def constraints() -> dict[str, str]:
    lines = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in (line.split("==") for line in lines)}


def requirements() -> list[str]:
    groups = [PYPROJECT["project"]["dependencies"], *PYPROJECT["project"]["optional-dependencies"].values()]
    return [r for group in groups for r in group if not r.startswith("gristmill")]


def test_one_version_of_torch_everywhere():
    pinned = constraints()["torch"]
    assert f"torch=={pinned}" in PYPROJECT["project"]["dependencies"]
    assert f"ARG TORCH={pinned}\n" in (INFRA / "Dockerfile").read_text()
    assert f" torch=={pinned}\n" in (PROJECT / "Makefile").read_text()


@pytest.mark.parametrize("requirement", requirements())
def test_every_requirement_is_constrained(requirement):
    name = re.sub(r"[-_.]+", "-", re.match(r"[A-Za-z0-9_.-]+", requirement)[0]).lower()
    assert name in constraints(), f"{name} has no line in constraints.txt"


def test_constraints_name_versions_only():
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for version in constraints().values())


def test_the_wheel_takes_what_is_no_python():
    include = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    taken = [p.removeprefix("*") for p in PYPROJECT["tool"]["setuptools"]["package-data"]["*"]]
    tracked = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True).stdout.splitlines()
    inside = [p for p in tracked if any(re.match(i.replace(".", "/").replace("*", ".*"), p) for i in include)]
    left = [p for p in inside if Path(p).suffix not in {".py", *taken}]
    assert not left, f"a wheel would leave out {left}: add their suffixes to package-data"


def test_compose_publishes_on_loopback_only():
    ports = [port for service in compose()["services"].values() for port in service.get("ports", [])]
    assert ports and all(str(port).startswith("127.0.0.1:") for port in ports)


def test_servers_that_listen_beyond_loopback_have_an_auth_string():
    service = compose()["services"]["server"]
    assert "0.0.0.0" in service["command"] and service["environment"]["PREFECT_SERVER_API_AUTH_STRING"]
    listening = [c for path in MANIFESTS for c in containers(path) if "0.0.0.0" in c.get("command", [])]
    assert listening
    for container in listening:
        names = [e["name"] for e in container["env"]]
        assert "PREFECT_SERVER_API_AUTH_STRING" in names


def test_no_secret_is_in_a_file():
    for service in compose()["services"].values():
        for name, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|AUTH|SECRET|KEY|TOKEN|CONNECTION_URL", name):
                assert "${" in value, f"{name} of compose.yaml"
    for path in MANIFESTS:
        assert all(d["kind"] != "Secret" for d in documents(path))
        for container in containers(path):
            for entry in container.get("env", []):
                if re.search("PASSWORD|AUTH|SECRET|KEY|TOKEN|CONNECTION_URL", entry["name"]):
                    assert "secretKeyRef" in entry["valueFrom"], f"{entry['name']} in {path.name}"
    for path in INFRA.rglob("*.env.example"):
        values = [line.partition("=")[2] for line in path.read_text().splitlines() if line and line[0] != "#"]
        assert all(not v or "PASSWORD" in v for v in values), path.name
    assert "secrets.env" in (PROJECT / ".gitignore").read_text().split()


def test_pods_are_confined_and_bounded():
    for path in MANIFESTS:
        for container in containers(path):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, (path.name, container["name"])
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"], (path.name, container["name"])


def test_kustomization_names_files_that_exist():
    kustomization = documents(INFRA / "kubernetes" / "kustomization.yaml")[0]
    assert all((INFRA / "kubernetes" / name).is_file() for name in kustomization["resources"])


def test_images_are_ours_of_this_version_or_pinned():
    """kustomization.yaml names the version for the files that it lists; another is applied as it stands."""
    kustomization = documents(INFRA / "kubernetes" / "kustomization.yaml")[0]
    (ours,) = kustomization["images"]
    assert ours["newTag"] == PYPROJECT["project"]["version"]
    third = {compose()["services"]["postgres"]["image"]}
    assert all(re.search(r":\d", image) for image in third)
    for path in MANIFESTS:
        name = ours["name"] if path.name in kustomization["resources"] else f"{ours['newName']}:{ours['newTag']}"
        assert {c["image"] for c in containers(path)} <= {name} | third, path.name
    assert {s["image"] for s in compose()["services"].values()} == {ours["name"]} | third
    assert f" -t {ours['name']} " in (INFRA / "Dockerfile").read_text()


def test_leases_outlive_every_server():
    """With leases in memory, a run whose server was killed blocks the next one for ever."""
    wanted = "prefect.server.concurrency.lease_storage.filesystem"
    from flows import embedded

    assert embedded.DEFAULTS["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == wanted
    assert compose()["services"]["server"]["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == wanted
    server = containers(INFRA / "kubernetes" / "server.yaml")[0]
    assert {"name": "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE", "value": wanted} in server["env"]


def python_of(path: Path) -> str:
    if path.suffix == ".sbatch":
        return re.search(r"python -c '\n(.*?)'", path.read_text(), re.DOTALL)[1]
    return containers(path)[0]["args"][0]


@pytest.mark.parametrize("name", ["slurm/pretrain.sbatch", "kubernetes/pretrain.yaml"])
def test_launchers_call_what_exists(name):
    """The Python in the launch scripts: imports that resolve, settings and machines that the models take."""
    import importlib
    import inspect

    source = python_of(INFRA / name)
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
    from model.settings import Pretrain, Processes, parse
    from tasks.launch import pretrain

    calls = {n.func.id: n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    assert {k.arg for k in calls["Processes"].keywords} <= set(Processes.model_fields)
    assert {k.arg for k in calls["pretrain"].keywords} <= set(inspect.signature(pretrain).parameters)
    given = calls["parse"].args[1]
    if isinstance(given, ast.Dict):
        parse(Pretrain, ast.literal_eval(given))


def test_scripts_are_bash_that_parses():
    for script in (INFRA / "slurm" / "pretrain.sbatch", PROJECT / ".ci" / "run"):
        subprocess.run(["bash", "-n", script], check=True)
    default = 'f() { echo "${2:-{\\}}"; }; f x'  # how the sbatch file says {}
    assert json.loads(subprocess.run(["bash", "-c", default], capture_output=True).stdout) == {}


DEPLOYMENTS = yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]


def test_deployments_are_those_that_are_documented():
    names = {f"{Path(d['entrypoint'].split(':')[0]).stem.replace('_', '-')}/{d['name']}" for d in DEPLOYMENTS}
    assert names == {
        "build-corpus/build-corpus", "build-corpus/sample", "build-corpus/commoncrawl", "refresh-corpus/nightly",
        "train-tokenizer/train-tokenizer", "train-classifier/train-classifier", "pretrain/pretrain", "pretrain/sample",
        "finetune/finetune", "evaluate/evaluate", "ablate/ablate",
    }  # fmt: skip
    for deployment in DEPLOYMENTS:
        assert deployment["work_pool"]["name"] == "gristmill"
        assert "concurrency_limit" not in deployment  # after a crash its lease blocks the next run
        assert deployment["description"]


def test_the_sample_is_held_against_the_benchmark_that_is_planted_in_it():
    from flows.settings import load_recipe
    from tasks.decontaminate import resources
    from tasks.sample_crawl import BENCHMARK

    (sample,) = [d for d in DEPLOYMENTS if d["name"] == "sample" and "build_corpus" in d["entrypoint"]]
    assert sample["parameters"]["inputs"] == ["sample:"]
    assert resources(load_recipe(sample["parameters"]["recipe"]).decontaminate) == [str(BENCHMARK)]


def test_only_the_nightly_refresh_has_a_schedule_and_no_trigger_is_on():
    scheduled = {d["name"]: d["schedules"] for d in DEPLOYMENTS if "schedules" in d}
    assert list(scheduled) == ["nightly"]
    assert scheduled["nightly"][0]["cron"] == "0 2 * * *" and scheduled["nightly"][0]["timezone"] == "UTC"
    triggers = [(d["name"], t) for d in DEPLOYMENTS for t in d.get("triggers", [])]
    assert [name for name, _ in triggers] == ["pretrain"]
    assert all(t["enabled"] is False and t["expect"] == ["gristmill.corpus.published"] for _, t in triggers)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda d: f"{d['entrypoint']}-{d['name']}")
def test_deployments_fit_their_flows(deployment):
    """The entry point is a flow of that name, and its parameters and the trigger's are the flow's."""
    import importlib

    path, function = deployment["entrypoint"].split(":")
    flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), function)
    assert flow.name == Path(path).stem.replace("_", "-")
    given = deployment.get("parameters", {})
    assert set(given) <= set(flow.parameters.properties)
    if given:
        flow.validate_parameters(given)
    for trigger in deployment.get("triggers", []):
        assert set(trigger["parameters"]) <= set(flow.parameters.properties)
