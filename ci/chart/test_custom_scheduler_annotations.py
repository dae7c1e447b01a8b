"""What only custom-scheduler-annotations has: who it is called for, what it is told, and what it may do."""

import unittest

from rendering import ROOT, Refused, container, helm, render

NAME = "custom-scheduler-annotations"


def annotations(**block):
    return {NAME: {"enabled": True, **block}}


def hooks(values):
    """The webhooks of its configuration: that for pods, and that for workloads."""
    pods, workloads = render(values).one("MutatingWebhookConfiguration", NAME)["webhooks"]
    return pods, workloads


class Webhook(unittest.TestCase):
    def test_namespaces_opt_in_as_for_its_original(self):
        for hook in hooks(annotations()):
            self.assertEqual(hook["namespaceSelector"]["matchLabels"], {"custom-kube-scheduler-webhook": "enabled"})
            self.assertEqual((hook["failurePolicy"], hook["clientConfig"]["service"]["path"]), ("Ignore", "/mutate"))
            self.assertEqual(hook["sideEffects"], "NoneOnDryRun")

    def test_pods_when_they_are_created_and_workloads_when_they_are_applied(self):
        pods, workloads = hooks(annotations(owners=[{"apiGroup": "argoproj.io", "resources": ["rollouts"]}]))
        self.assertEqual([(r["resources"], r["operations"]) for r in pods["rules"]], [(["pods"], ["CREATE"])])
        resources = {resource for rule in workloads["rules"] for resource in rule["resources"]}
        self.assertEqual(resources, {"deployments", "replicasets", "statefulsets", "cronjobs", "jobs", "rollouts"})
        self.assertNotEqual(pods["name"], workloads["name"])

    def test_selectors_of_pods_are_not_for_workloads(self):
        condition = {"name": "example.com/pods", "expression": "object.spec.nodeName == ''"}
        pods, workloads = hooks(annotations(objectSelector={"matchLabels": {"a": "b"}}, matchConditions=[condition]))
        self.assertIn(condition, pods["matchConditions"])
        self.assertNotIn(condition, workloads["matchConditions"])
        self.assertNotIn("matchLabels", workloads["objectSelector"])
        for hook in (pods, workloads):
            self.assertIn({"key": "podshaper.dev/skip", "operator": "NotIn", "values": ["true"]}, hook["objectSelector"]["matchExpressions"])

    def test_values_become_variables(self):
        def told(**block):
            variables = {v["name"]: v.get("value") for v in container(annotations(**block))["env"]}
            return [variables[name] for name in ("BLOCKLISTED_NAMESPACE_LIST", "RECONCILER_PERIOD", "VALIDATE_STRATEGIES")]

        self.assertEqual(told(), ["kube-system,kube-public,default", "5", "false"])
        self.assertEqual(told(blocklistedNamespaces=[], validate=True, reconcilerPeriod=60), ["", "60", "true"])
        for wrong in ({"blocklistedNamespaces": ["a,b"]}, {"validate": "yes"}, {"reconcilerPeriod": 0}):
            with self.assertRaises(Refused):
                render(annotations(**wrong))

    def test_it_may_not_read_nodes_nor_evict(self):
        role = render(annotations()).one("ClusterRole", f"rel-{NAME}")
        resources = {resource for rule in role["rules"] for resource in rule["resources"]}
        self.assertFalse(resources & {"nodes", "pods/eviction", "poddistributors"})

    def test_the_definition_of_ledgers_comes_once(self):
        alone = render(annotations()).of("CustomResourceDefinition")
        both = render({**annotations(), "distributor": {"enabled": True}}).of("CustomResourceDefinition")
        self.assertEqual([d["metadata"]["name"] for d in alone], ["placements.podshaper.dev"])
        self.assertEqual(
            sorted(d["metadata"]["name"] for d in both), ["placements.podshaper.dev", "poddistributors.versprei.versprei.io"]
        )

    def test_the_self_tests_namespace_has_opted_in(self):
        objects = render(annotations())
        self.assertEqual(objects.one("Namespace")["metadata"]["labels"]["custom-kube-scheduler-webhook"], "enabled")
        self.assertEqual(objects.one("ReplicaSet")["spec"]["replicas"], 0)

    def test_lint(self):
        helm(annotations(), "lint", str(ROOT / "charts/podshaper"), "--strict")


if __name__ == "__main__":
    unittest.main()
