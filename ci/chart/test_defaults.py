"""What a user gets who only turns a webhook on."""

import unittest

from rendering import container, peerpods, pod_spec, render, webhook


class Defaults(unittest.TestCase):
    def test_the_webhook_configuration(self):
        self.assertEqual(
            webhook(peerpods()),
            {
                "name": "peerpods.podshaper.dev",
                "clientConfig": {
                    "service": {"name": "rel-peerpods", "namespace": "sys", "path": "/mutate-v1-pod", "port": 443}
                },
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "timeoutSeconds": 5,
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "operations": ["CREATE"],
                        "scope": "Namespaced",
                    }
                ],
                "namespaceSelector": {
                    "matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system", "sys"]},
                        {"key": "podshaper.dev/release", "operator": "DoesNotExist"},
                        {"key": "podshaper.dev/skip", "operator": "NotIn", "values": ["true"]},
                    ]
                },
                "objectSelector": {
                    "matchExpressions": [{"key": "podshaper.dev/skip", "operator": "NotIn", "values": ["true"]}]
                },
                "matchConditions": [
                    {
                        "name": "podshaper.dev/not-a-mirror-pod",
                        "expression": "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))",
                    },
                    {"name": "podshaper.dev/has-a-runtime-class", "expression": "has(object.spec.runtimeClassName)"},
                ],
            },
        )

    def test_the_container(self):
        self.assertEqual(
            container(peerpods()),
            {
                "name": "peerpods",
                "image": "ghcr.io/podshaper/peerpods:"
                + render(peerpods()).one("Deployment")["metadata"]["labels"]["app.kubernetes.io/version"],
                "imagePullPolicy": "IfNotPresent",
                "args": [
                    "serve",
                    "--webhook-bind-address=:9443",
                    "--health-probe-bind-address=:8081",
                    "--metrics-bind-address=:8080",
                    "--metrics-auth=never",
                    "--log-level=info",
                    "--log-format=auto",
                    "--self-managed-secret=rel-peerpods-self-managed",
                    "--webhook-configuration=rel-peerpods",
                    "--service-name=rel-peerpods",
                    "--leaf-lifetime=90d",
                    "--ca-lifetime=365d",
                    "--target-runtimeclass=kata-remote",
                    "--pod-vm-extended-resource=kata.peerpods.io/vm",
                ],
                "env": [{"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}}],
                "ports": [
                    {"name": "health", "containerPort": 8081},
                    {"name": "metrics", "containerPort": 8080},
                    {"name": "webhook", "containerPort": 9443},
                ],
                "livenessProbe": {"httpGet": {"path": "/livez", "port": "health"}},
                "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
            },
        )

    def test_the_pod(self):
        spec = pod_spec(peerpods())
        del spec["containers"]
        labels = {
            "app.kubernetes.io/name": "peerpods",
            "app.kubernetes.io/instance": "rel",
            "app.kubernetes.io/component": "webhook",
        }
        self.assertEqual(
            spec,
            {
                "serviceAccountName": "rel-peerpods",
                "automountServiceAccountToken": True,
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": 40,
                "nodeSelector": {"kubernetes.io/os": "linux"},
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "kubernetes.io/hostname",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": labels},
                        "matchLabelKeys": ["pod-template-hash"],
                    }
                ],
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            },
        )

    def test_the_rollout(self):
        spec = render(peerpods()).one("Deployment")["spec"]
        self.assertEqual(spec["replicas"], 2)
        self.assertEqual(spec["strategy"], {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}})
        budget = render(peerpods()).one("PodDisruptionBudget")["spec"]
        self.assertEqual((budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]), (1, "AlwaysAllow"))

    def test_what_is_optional_is_not_there(self):
        kinds = {o["kind"] for o in render(peerpods())}
        for kind in (
            "ConfigMap",
            "NetworkPolicy",
            "ServiceMonitor",
            "PodMonitor",
            "Certificate",
            "Issuer",
            "DaemonSet",
            "ValidatingAdmissionPolicy",
        ):
            self.assertNotIn(kind, kinds)


if __name__ == "__main__":
    unittest.main()
