"""The projects that the webhooks replace, as they are in a cluster: definitions, objects, and webhook configurations."""


def definition(group, plural, kind, version, spec, *, namespaced=True):
    """A definition as kubectl has applied it, with the original's fields."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "scope": "Namespaced" if namespaced else "Cluster",
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {"metadata": {"type": "object"}, "spec": spec, "status": STATUS},
                        }
                    },
                }
            ],
        },
    }


STRING, INTEGER = {"type": "string"}, {"type": "integer", "format": "int32"}
STATUS = {"type": "object", "properties": {"status": STRING}}


def fields(required=(), **properties):
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


DISTRIBUTORS = definition(
    "versprei.versprei.io",
    "poddistributors",
    "PodDistributor",
    "v1beta1",
    fields(
        ["distribution", "target"],
        distribution={
            "type": "array",
            "items": fields(
                ["nodeLabel", "weight"],
                nodeLabel={"type": "object", "additionalProperties": STRING},
                weight=INTEGER,
            ),
        },
        target=fields(["name"], apiVersion=STRING, kind=STRING, name=STRING),
    ),
)
TEMPLATES = definition(
    "flexdaemonsets.xai",
    "flexdaemonsettemplates",
    "FlexDaemonsetTemplate",
    "v1alpha1",
    fields(
        ["cpuPercentage", "memoryPercentage", "storagePercentage"],
        **{name: INTEGER for name in ("cpuPercentage", "memoryPercentage", "storagePercentage")},
        **{name: STRING for name in ("minCPU", "minMemory", "minStorage")},
    ),
    namespaced=False,
)
NODE_PODS = definition(
    "flexdaemonsets.xai",
    "flexdaemonsetnodepods",
    "FlexDaemonSetNodePod",
    "v1alpha1",
    fields(["daemonSetName", "nodeName"], daemonSetName=STRING, daemonSetNamespace=STRING, nodeName=STRING),
)


def configuration(name, webhook, service, path, **more):
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [
            {
                "name": webhook,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {"service": {"name": service, "namespace": service, "path": path}},
                "failurePolicy": "Ignore",
                "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
                # No pod of a test depends on it.
                "namespaceSelector": {"matchLabels": {"podshaper-test": "originals"}},
                **more,
            }
        ],
    }


def distributor(namespace):
    return {
        "apiVersion": "versprei.versprei.io/v1beta1",
        "kind": "PodDistributor",
        "metadata": {"name": "nginx-deployment", "namespace": namespace},
        "spec": {
            "distribution": [
                {"nodeLabel": {"type": "default"}, "weight": 80},
                {"nodeLabel": {"type": "spot"}, "weight": 20},
            ],
            "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "nginx-deployment"},
        },
    }


def template():
    return {
        "apiVersion": "flexdaemonsets.xai/v1alpha1",
        "kind": "FlexDaemonsetTemplate",
        "metadata": {"name": "originals-template"},
        "spec": {
            "cpuPercentage": 10,
            "memoryPercentage": 15,
            "storagePercentage": 5,
            "minCPU": "100m",
            "minMemory": "128Mi",
        },
    }


def node_pod(namespace):
    return {
        "apiVersion": "flexdaemonsets.xai/v1alpha1",
        "kind": "FlexDaemonSetNodePod",
        "metadata": {"name": "agent-node1", "namespace": namespace},
        "spec": {"daemonSetName": "agent", "daemonSetNamespace": namespace, "nodeName": "node1"},
    }


# Each webhook: the configuration of its original, the original's definitions, and objects of these in a namespace.
ORIGINALS = {
    "peerpods": (
        configuration(
            "peer-pods-webhook-mutating-webhook-configuration",
            "mwebhook.peerpods.io",
            "peer-pods-webhook-webhook-service",
            "/mutate-v1-pod",
        ),
        [],
        lambda _: [],
    ),
    "flexdaemonset": (
        configuration(
            "flexdaemonsets-mutating-webhook-config",
            "flexdaemonsets.xai.webhook",
            "flexdaemonsets-webhook-svc",
            "/mutate-v1-pod",
        ),
        [TEMPLATES, NODE_PODS],
        lambda namespace: [template(), node_pod(namespace)],
    ),
    "distributor": (
        configuration("versprei-webhook-service", "versprei.default.com", "versprei-webhook-service", "/mutate"),
        [DISTRIBUTORS],
        lambda namespace: [distributor(namespace)],
    ),
    "custom-scheduler-annotations": (
        configuration(
            "custom-kube-scheduler-webhook",
            "custom-kube-scheduler-webhook.example.com",
            "custom-kube-scheduler-webhook",
            "/mutate",
        ),
        [],
        lambda _: [],
    ),
    # One of the webhooks that add an affinity for architectures; they have no definitions.
    "arch": (
        configuration("multiarch-webhook", "multiarch.example.com", "multiarch-webhook", "/mutate"),
        [],
        lambda _: [],
    ),
}
