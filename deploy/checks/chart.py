"""The Helm chart, rendered by the real Helm with several sets of values."""

import functools
import json
import tomllib

import kubernetes_validate
import yaml

from report import TOOLS, TOP, Failed, equal, refused, run

HELM = TOOLS / "helm/helm"
CHART = TOP / "helm/fanfare"
VALUE_SETS = {"default": [], **{path.stem: [f"--values={path}"] for path in sorted((CHART / "ci").glob("*.yaml"))}}

# The oldest that the chart allows, and the newest whose schemas there are.
KUBERNETES = ("1.27", kubernetes_validate.latest_version())
# From the Prometheus operator, not from Kubernetes: there is no schema to hold it against.
UNKNOWN_KINDS = {"PodMonitor"}


def template(*arguments: str) -> tuple[str, ...]:
    return (str(HELM), "template", "fanfare", str(CHART), *arguments)


@functools.cache
def render(*arguments: str) -> dict[tuple[str, str], dict]:
    """The manifests by kind and name."""
    documents = [document for document in yaml.safe_load_all(run(*template(*arguments))) if document]
    manifests = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    equal(len(manifests), len(documents), "number of different names")
    return manifests


def rendered():
    for name, arguments in VALUE_SETS.items():
        for (kind, _), manifest in render(*arguments).items():
            yield f"{name}: {kind} {manifest['metadata']['name']}", manifest


def pods():
    for name, manifest in rendered():
        if manifest["kind"] == "Deployment":
            yield name, manifest["spec"]["template"]["spec"]


def edge(*arguments: str, kind: str = "Deployment") -> dict:
    return render(*arguments)[kind, "fanfare-edge"]["spec"]


def environment(container: dict) -> dict[str, str]:
    return {variable["name"]: variable.get("value", variable.get("valueFrom")) for variable in container["env"]}


def check_helm_lints_it_strictly():
    for arguments in VALUE_SETS.values():
        run(HELM, "lint", "--strict", "--quiet", CHART, *arguments)


def check_kubernetes_knows_every_field():
    for name, manifest in rendered():
        if manifest["kind"] in UNKNOWN_KINDS:
            continue
        for version in KUBERNETES:
            try:
                kubernetes_validate.validate(manifest, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                raise Failed(f"{name}, Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}") from error
            except kubernetes_validate.SchemaNotFoundError as error:
                raise Failed(f"{name}: {error.message}") from error


def check_both_roles_have_everything_by_default():
    for role in ("edge", "publish"):
        for kind in ("Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"):
            if (kind, f"fanfare-{role}") not in render():
                raise Failed(f"no {kind} fanfare-{role}")
    equal(("Secret", "fanfare") in render(), False, "a Secret without values")


def check_selectors_find_their_own_pods_only():
    for kind, path in (("Service", ()), ("PodDisruptionBudget", ("matchLabels",)), ("Deployment", ("matchLabels",))):
        for role in ("edge", "publish"):
            selector = functools.reduce(dict.get, path, render()[kind, f"fanfare-{role}"]["spec"]["selector"])
            for other in ("edge", "publish"):
                labels = render()["Deployment", f"fanfare-{other}"]["spec"]["template"]["metadata"]["labels"]
                equal(selector.items() <= labels.items(), role == other, f"whether {kind} {role} selects {other} pods")


def check_the_grace_period_follows_from_the_drain():
    cases = {
        (): 40,
        ("--set=edge.drainTimeout=1m 30s",): 110,
        ("--set=edge.drainDelay=15s",): 50,
        ("--set=edge.drainDelay=1500ms", "--set=edge.drainTimeout=1h"): 3617,
        ("--set-string=edge.drainDelay=0", "--set=edge.drainTimeout=0s"): 15,
    }
    for arguments, seconds in cases.items():
        deployment = edge(*arguments)
        pod = deployment["template"]["spec"]
        equal(pod["terminationGracePeriodSeconds"], seconds, f"grace period with {arguments}")
        equal(deployment["minReadySeconds"], seconds - 15, f"minReadySeconds with {arguments}")
        if deployment["progressDeadlineSeconds"] <= deployment["minReadySeconds"]:
            raise Failed("Kubernetes refuses a progress deadline that is not beyond minReadySeconds")
    equal(
        render("--set=publish.drainDelay=1m")["Deployment", "fanfare-publish"]["spec"]["template"]["spec"][
            "terminationGracePeriodSeconds"
        ],
        75,
        "a publisher's grace period",
    )


def check_the_pods_hear_of_the_same_drain():
    found = environment(edge("--set=edge.drainTimeout=1m 30s")["template"]["spec"]["containers"][0])
    equal(found["FANFARE_DRAIN_TIMEOUT"], "1m 30s", "FANFARE_DRAIN_TIMEOUT")
    equal(found["FANFARE_DRAIN_DELAY"], "5s", "FANFARE_DRAIN_DELAY")


def check_services_put_no_variables_into_pods():
    for name, pod in pods():
        equal(pod["enableServiceLinks"], False, f"{name}: enableServiceLinks")


def check_pods_are_safe():
    for name, manifest in rendered():
        if manifest["kind"] == "ServiceAccount":
            equal(manifest["automountServiceAccountToken"], False, f"{name}: automountServiceAccountToken")
    for name, pod in pods():
        equal(pod["automountServiceAccountToken"], False, f"{name}: automountServiceAccountToken")
        equal(pod["securityContext"]["runAsNonRoot"], True, f"{name}: runAsNonRoot")
        equal(pod["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"}, f"{name}: seccompProfile")
        equal([key for key in pod if "ontainers" in key], ["containers"], f"{name}: kinds of containers")
        for container in pod["containers"]:
            context = {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            equal(container["securityContext"], context, f"{name}: securityContext")
            equal("limits" in container["resources"], True, f"{name}: whether memory is limited")


def check_probes_ask_the_admin_address():
    for name, pod in pods():
        for container in pod["containers"]:
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            equal(ports["admin"], 9091, f"{name}: admin port")
            equal(ports["http"], {"edge": 8080, "publish": 8081}[container["name"]], f"{name}: port")
            for probe, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
                equal(container[f"{probe}Probe"]["httpGet"], {"path": path, "port": "admin"}, f"{name}: {probe} probe")
    for name, manifest in rendered():
        if manifest["kind"] == "Service":
            equal([port["targetPort"] for port in manifest["spec"]["ports"]], ["http"], f"{name}: ports")


def check_edges_scale_on_connections_and_shrink_slowly():
    spec = edge(kind="HorizontalPodAutoscaler")
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "fanfare_connections"}, "target": {"type": "AverageValue", "averageValue": "25000"}},
    }
    equal(spec["metrics"], [metric], "metrics")
    shrink = spec["behavior"]["scaleDown"]
    equal(shrink["stabilizationWindowSeconds"], 600, "scale-down window")
    equal(shrink["policies"], [{"type": "Pods", "value": 1, "periodSeconds": 120}], "scale-down policies")
    slower = edge("--set=edge.drainTimeout=10m", kind="HorizontalPodAutoscaler")["behavior"]["scaleDown"]["policies"]
    equal(slower[0]["periodSeconds"], 605, "pace of shrinking with a long drain")
    equal("replicas" in edge(), False, "whether a Deployment overrides its autoscaler")
    equal(edge("--set=edge.autoscaling.enabled=false")["replicas"], 2, "replicas without an autoscaler")


def check_settings_arrive_as_they_were_written():
    containers = {pod["containers"][0]["name"]: pod["containers"][0] for name, pod in pods() if "everything" in name}
    edge_has, publish_has = environment(containers["edge"]), environment(containers["publish"])
    expected = {
        "FANFARE_MAX_CONNECTIONS": "1000000",
        "FANFARE_MAX_CONNECTIONS_PER_USER_ACTION": "replace-oldest",
        "FANFARE_MAX_CONNECTIONS_PER_ADDRESS": "50",
        "FANFARE_TRUSTED_PROXIES": "10.0.0.0/8,fd00::/8",
        "FANFARE_MAX_AGE": "12h",
        "FANFARE_ANONYMOUS_CHANNELS": "broadcast,prices:*",
        "FANFARE_AUTH_GRANTS": "org:{org}:*,team:{team}:*",
        "FANFARE_AUTH_QUERY_TOKEN": "true",
        "FANFARE_CORS_ORIGINS": "https://app.example.com,https://admin.example.com",
        "FANFARE_HISTORY_SIZE": "1000",
        "FANFARE_REDIS_URL": {"secretKeyRef": {"name": "events-secrets", "key": "redis-url"}},
    }
    equal({name: edge_has.get(name) for name in expected}, expected, "an edge's environment")
    equal(publish_has["FANFARE_MAX_PAYLOAD"], "256KiB", "a publisher's FANFARE_MAX_PAYLOAD")
    equal(publish_has["FANFARE_REDIS_MIN_REPLICAS"], "1", "a publisher's FANFARE_REDIS_MIN_REPLICAS")
    equal(edge_has.get("FANFARE_PUBLISH_KEYS"), None, "publish keys on an edge")
    unset = {name for name, value in environment(edge()["template"]["spec"]["containers"][0]).items() if value == ""}
    equal(unset, set(), "variables that are set to nothing")


def check_edges_get_their_routes_as_a_file():
    manifests = render(*VALUE_SETS["everything"])
    routes = tomllib.loads(manifests["ConfigMap", "events-edge"]["data"]["fanfare.toml"])["routes"]
    equal([route["path"] for route in routes], ["/api/servers/{id}/events", "/live/campaigns", "/sse"], "paths")
    equal(routes[0]["replay"], 20, "replay")
    equal(type(routes[0]["replay"]), int, "type of replay")
    equal(routes[1]["heartbeat"], {"event": "message", "data": '{"trigger":"ping"}'}, "heartbeat")
    file = {"file": "/run/secrets/fanfare/tasks-secret"}
    equal(routes[2]["forward_headers"], {"X-Fanfare-Secret": file}, "forward_headers")
    pods = {role: manifests["Deployment", f"events-{role}"]["spec"]["template"]["spec"] for role in ("edge", "publish")}
    container = pods["edge"]["containers"][0]
    equal(container["args"], ["edge", "--config", "/etc/fanfare/fanfare.toml"], "arguments")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    equal(mounts, {"routes": "/etc/fanfare", "route-secrets": "/run/secrets/fanfare"}, "mounts")
    secret = next(volume["secret"] for volume in pods["edge"]["volumes"] if "secret" in volume)
    items = [{"key": "tasks-secret", "path": "tasks-secret"}]
    equal(secret, {"secretName": "events-secrets", "items": items}, "what is mounted of the Secret")
    for pod in (pods["publish"], edge()["template"]["spec"]):
        equal("volumes" in pod or "volumeMounts" in pod["containers"][0], False, "volumes without routes")


def check_secrets_stay_in_secrets():
    manifests = render(*VALUE_SETS["own-secret"])
    secret = manifests["Secret", "fanfare"]["stringData"]
    equal(sorted(secret), ["auth-secret", "publish-keys", "redis-password"], "keys of the Secret")
    others = json.dumps([manifest for (kind, _), manifest in manifests.items() if kind != "Secret"])
    for key, value in secret.items():
        equal(f'"{value}"' in others, False, f"whether {key} is seen outside the Secret")
    sums = {
        render(*VALUE_SETS["own-secret"], f"--set=auth.secret={secret}")["Deployment", "fanfare-edge"]["spec"]["template"][
            "metadata"
        ]["annotations"]["checksum/secret"]
        for secret in ("one", "other")
    }
    equal(len(sums), 2, "number of checksums of two Secrets")


def check_typos_and_contradictions_are_refused_by_name():
    for argument, word in {
        "edge.drainTimout=20s": "drainTimout",
        "publish.drainTimeout=20s": "drainTimeout",
        "redis.partition=8": "partition",
        "edgee.replicas=2": "edgee",
        "edge.drainDelay=5": "/edge/drainDelay",
        "edge.drainTimeout=soon": "/edge/drainTimeout",
        "edge.service.type=Cluster": "/edge/service/type",
        "redis.partitions=65": "/redis/partitions",
        "auth.secret=only": "publish.keys is not set",
        "publish.keys=only": "auth.secret is not set",
        "existingSecret=mine,redis.password=secret": "redis-password",
        "redis.url=redis://user:secret@redis": "redis.password",
        "edge.autoscaling.maxReplicas=1": "edge.autoscaling.maxReplicas",
        "edge.routes[0].path=/a,edge.routes[0].chanels={a}": "chanels",
        "edge.routes[0].path=/a,edge.routes[0].forward_headers.X=plain": "forward_headers",
    }.items():
        message = refused(*template(f"--set={argument}"))
        if word not in message:
            raise Failed(f"{argument} is refused without naming {word}: {message}")


def check_every_value_is_in_the_schema_and_used_in_a_template():
    schema = json.loads((CHART / "values.schema.json").read_text())
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())

    def walk(node: dict, path: str) -> None:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]] if "$ref" in node else node
        if "properties" in node:
            equal(node.get("additionalProperties"), False, f"additionalProperties of {path or 'the values'}")
        for key, value in node.get("properties", {}).items():
            if path not in ("", ".edge.resources", ".publish.resources") and key not in templates:
                raise Failed(f"no template uses {path}.{key}")
            walk(value, f"{path}.{key}")

    walk(schema, "")
