"""Relations between the objects of each rendering, which helm-unittest and kubeconform cannot express."""

import functools
import unittest

from matrix import matrix
from rendering import CHART, NAMESPACE, RELEASE, helm, is_hook, render

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def pods(objects):
    """(owner, pod template) of everything that runs a pod."""
    for obj in objects:
        if obj["kind"] in ("Deployment", "DaemonSet"):
            yield obj, obj["spec"]["template"]
        elif obj["kind"] == "Pod":
            yield obj, obj


@functools.cache
def renderings():
    return [(name, values, render(values)) for name, values in matrix()]


def in_every_rendering(test):
    """Run the test, which takes (values, objects), for each point of the matrix."""

    @functools.wraps(test)
    def run(self):
        for name, values, objects in renderings():
            with self.subTest(name):
                test(self, values, objects)

    return run


class Objects(unittest.TestCase):
    @in_every_rendering
    def test_helm_lint(self, values, _):
        helm(values, "lint", "--strict", "--quiet", str(CHART))

    @in_every_rendering
    def test_names_carry_the_release_and_are_unique(self, _, objects):
        ids = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects]
        self.assertEqual(len(ids), len(set(ids)))
        for obj in objects:
            self.assertTrue(obj["metadata"]["name"].startswith(f"{RELEASE}-peerpods"), obj["metadata"]["name"])

    @in_every_rendering
    def test_objects_live_in_the_release_namespace_or_in_the_tests(self, _, objects):
        for obj in objects:
            namespace = obj["metadata"].get("namespace")
            if obj["kind"] in CLUSTER_SCOPED:
                self.assertIsNone(namespace, obj["kind"])
            elif is_hook(obj):
                self.assertIn(namespace, (NAMESPACE, f"{RELEASE}-peerpods-selftest"))
            else:
                self.assertEqual(namespace, NAMESPACE, obj["kind"])

    @in_every_rendering
    def test_every_object_is_labelled(self, _, objects):
        for obj in objects:
            labels = obj["metadata"]["labels"]
            self.assertEqual(labels["app.kubernetes.io/part-of"], "podshaper")
            self.assertEqual(labels["app.kubernetes.io/instance"], RELEASE)
            self.assertEqual(labels["app.kubernetes.io/name"], "peerpods")

    @in_every_rendering
    def test_selectors_select_the_webhook_and_nothing_else(self, _, objects):
        labels = {owner["kind"]: pod["metadata"]["labels"] for owner, pod in pods(objects)}
        selectors = [
            objects.one("Service")["spec"]["selector"],
            objects.one("Deployment")["spec"]["selector"]["matchLabels"],
        ]
        selectors += [o["spec"]["selector"]["matchLabels"] for o in objects.of("PodDisruptionBudget")]
        policies = [o for o in objects.of("NetworkPolicy") if o["metadata"]["name"] == f"{RELEASE}-peerpods"]
        selectors += [o["spec"]["podSelector"]["matchLabels"] for o in policies]
        selectors += [o["spec"]["selector"]["matchLabels"] for o in objects.of("PodMonitor")]
        selectors += [
            c["labelSelector"]["matchLabels"]
            for c in objects.one("Deployment")["spec"]["template"]["spec"].get("topologySpreadConstraints", [])
        ]
        for selector in selectors:
            matched = [kind for kind, has in labels.items() if selector.items() <= has.items()]
            self.assertEqual(matched, ["Deployment"])
        for monitor in objects.of("ServiceMonitor"):
            self.assertLessEqual(
                monitor["spec"]["selector"]["matchLabels"].items(), objects.one("Service")["metadata"]["labels"].items()
            )

    @in_every_rendering
    def test_pods_are_locked_down(self, _, objects):
        for owner, pod in pods(objects):
            spec = pod["spec"]
            self.assertIs(spec["securityContext"]["runAsNonRoot"], True)
            self.assertEqual(spec["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            for container in spec["containers"]:
                self.assertEqual(
                    container["securityContext"],
                    {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    owner["kind"],
                )

    @in_every_rendering
    def test_podshapers_own_pods_opt_out(self, _, objects):
        """Of every release's webhooks: otherwise two of them that are down could keep each other down."""
        for owner, pod in pods(objects):
            self.assertEqual(pod["metadata"]["labels"]["podshaper.dev/skip"], "true", owner["kind"])

    @in_every_rendering
    def test_a_pod_has_a_token_if_and_only_if_it_may_do_something(self, _, objects):
        bound = {s["name"] for o in objects if o["kind"].endswith("RoleBinding") for s in o["subjects"]}
        for _, pod in pods(objects):
            account = pod["spec"]["serviceAccountName"]
            self.assertIs(pod["spec"]["automountServiceAccountToken"], account in bound, account)
        for account in objects.of("ServiceAccount"):
            self.assertIs(account["automountServiceAccountToken"], False)

    @in_every_rendering
    def test_bindings_bind_what_is_there(self, _, objects):
        there = {(o["kind"], o["metadata"]["name"]) for o in objects}
        for binding in (o for o in objects if o["kind"].endswith("RoleBinding")):
            self.assertIn((binding["roleRef"]["kind"], binding["roleRef"]["name"]), there)
            for subject in binding["subjects"]:
                self.assertIn((subject["kind"], subject["name"]), there)
                self.assertEqual(subject["namespace"], NAMESPACE)

    @in_every_rendering
    def test_volumes_are_mounted_and_there(self, values, objects):
        issued = {c["spec"]["secretName"] for c in objects.of("Certificate")}
        given = values["tls"].get("existingSecret", {}).get("name")
        for _, pod in pods(objects):
            volumes = {v["name"]: v for v in pod["spec"].get("volumes", [])}
            mounts = {m["name"] for c in pod["spec"]["containers"] for m in c.get("volumeMounts", [])}
            self.assertEqual(set(volumes), mounts)
            for volume in volumes.values():
                if "configMap" in volume:
                    objects.one("ConfigMap", volume["configMap"]["name"])
                elif "secret" in volume:
                    self.assertIn(volume["secret"]["secretName"], issued | {given})

    @in_every_rendering
    def test_ports_that_are_named_exist(self, _, objects):
        (container,) = objects.one("Deployment")["spec"]["template"]["spec"]["containers"]
        names = {p["name"] for p in container["ports"]}
        used = {p["targetPort"] for p in objects.one("Service")["spec"]["ports"]}
        used |= {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
        used |= {p["port"] for o in objects.of("NetworkPolicy") for rule in o["spec"].get("ingress", []) for p in rule["ports"]}
        self.assertLessEqual(used, names)
        service = objects.one("MutatingWebhookConfiguration")["webhooks"][0]["clientConfig"]["service"]
        self.assertEqual(
            (service["name"], service["namespace"]), (objects.one("Service")["metadata"]["name"], NAMESPACE)
        )
        self.assertIn(service["port"], {p["port"] for p in objects.one("Service")["spec"]["ports"]})

    @in_every_rendering
    def test_permissions_are_limited_to_names(self, _, objects):
        """Whatever may be written to is named, but for the reviews and the dry run of the tests."""
        for role in objects.of("Role") + objects.of("ClusterRole"):
            for rule in role["rules"]:
                self.assertNotIn("*", rule.get("resources", []) + rule["verbs"] + rule.get("apiGroups", []))
                if set(rule["verbs"]) - {"get", "list", "watch"} and not is_hook(role):
                    self.assertTrue(
                        "resourceNames" in rule
                        or rule["resources"][0] in ("tokenreviews", "subjectaccessreviews", "nodes/status"),
                        rule,
                    )

    def test_filter_of_helm_test_selects_all_of_a_self_test(self):
        """The runbooks run the self-test of one webhook, by the name of its hooks."""
        for name in ("arch", "custom-scheduler-annotations", "distributor", "flexdaemonset", "peerpods"):
            hooks = [o for o in render({name: {"enabled": True}}) if o["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
            self.assertEqual({o["metadata"]["name"] for o in hooks}, {f"rel-{name}-selftest"})


if __name__ == "__main__":
    unittest.main()
