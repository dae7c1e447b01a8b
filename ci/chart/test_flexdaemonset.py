"""What only flexdaemonset has: the definition of its kind, who may use it, and what the webhook may do."""

import unittest

import yaml
from rendering import ROOT, Refused, container, helm, render, webhook


def flexdaemonset(**block):
    return {"flexdaemonset": {"enabled": True, **block}}


class Definition(unittest.TestCase):
    def test_it_is_the_generated_one(self):
        (generated,) = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (ROOT / "crds").glob("flexdaemonset*"))
        rendered = render(flexdaemonset()).one("CustomResourceDefinition")
        self.assertEqual(rendered["spec"], generated["spec"])
        self.assertEqual(rendered["metadata"]["name"], generated["metadata"]["name"])

    def test_it_stays_unless_it_is_to_go(self):
        for keep, annotations in ((True, {"helm.sh/resource-policy": "keep"}), (False, {})):
            definition = render({"crds": {"keep": keep}, **flexdaemonset()}).one("CustomResourceDefinition")
            self.assertEqual(definition["metadata"].get("annotations", {}), annotations)

    def test_without(self):
        objects = render({"crds": {"enabled": False}, **flexdaemonset()})
        self.assertEqual(objects.of("CustomResourceDefinition"), [])
        self.assertEqual([r["metadata"]["name"] for r in objects.of("ClusterRole")], ["rel-flexdaemonset"])
        self.assertEqual(render({"peerpods": {"enabled": True}}).of("CustomResourceDefinition"), [])

    def test_the_clusters_roles_take_it_in(self):
        roles = {r["metadata"]["name"]: r for r in render(flexdaemonset()).of("ClusterRole")}
        for role, into, verb in (("view", {"view"}, "get"), ("edit", {"edit", "admin"}, "update")):
            labels = roles[f"rel-flexdaemonset-{role}"]["metadata"]["labels"]
            aggregated = {key.rpartition("aggregate-to-")[2] for key in labels if "aggregate-to-" in key}
            self.assertEqual(aggregated, into)
            (rule,) = roles[f"rel-flexdaemonset-{role}"]["rules"]
            self.assertEqual(rule["resources"], ["flexdaemonsettemplates"])
            self.assertIn(verb, rule["verbs"])


class Webhook(unittest.TestCase):
    def test_it_tells_of_its_events(self):
        self.assertEqual(webhook(flexdaemonset())["sideEffects"], "NoneOnDryRun")
        self.assertEqual(webhook({"peerpods": {"enabled": True}})["sideEffects"], "None")

    def test_only_pods_of_daemon_sets_reach_it(self):
        conditions = {c["name"]: c["expression"] for c in webhook(flexdaemonset())["matchConditions"]}
        self.assertIn("owner.kind == 'DaemonSet'", conditions["podshaper.dev/of-a-daemonset-or-marked"])

    def test_it_fails_open(self):
        self.assertEqual(webhook(flexdaemonset())["failurePolicy"], "Ignore")

    def test_it_has_no_rights_but_those_it_uses(self):
        refits = {("pods", "patch"), ("pods/resize", "patch"), ("pods/eviction", "create")}
        for enabled in (True, False):
            objects = render(flexdaemonset(refit={"enabled": enabled}))
            (role,) = (r for r in objects.of("ClusterRole") if r["metadata"]["name"] == "rel-flexdaemonset")
            rights = {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
            read = {(resource, verb) for resource in ("nodes", "daemonsets", "flexdaemonsettemplates") for verb in ("get", "list", "watch")}
            watched = {(resource, verb) for resource in ("pods", "limitranges") for verb in ("list", "watch")}
            written = {("flexdaemonsettemplates/status", "patch"), ("events", "create"), ("events", "patch")}
            own = {("mutatingwebhookconfigurations", verb) for verb in ("get", "watch", "patch")}
            self.assertEqual(rights, read | watched | written | own | (refits if enabled else set()))

    def test_values_become_variables(self):
        values = flexdaemonset(refit={"hysteresisPercent": 0, "inFlight": 7, "perMinute": 9})
        variables = {v["name"]: v.get("value") for v in container(values)["env"]}
        self.assertEqual(variables["FLEXDAEMONSET_REFIT_HYSTERESIS"], "0")
        self.assertEqual(variables["FLEXDAEMONSET_REFIT_IN_FLIGHT"], "7")
        self.assertEqual(variables["FLEXDAEMONSET_REFIT_PER_MINUTE"], "9")
        variables = {v["name"]: v.get("value") for v in container(flexdaemonset(refit={"enabled": False}))["env"]}
        self.assertEqual(variables["FLEXDAEMONSET_REFIT_PER_MINUTE"], "0")
        self.assertEqual(variables["PODSHAPER_LEASE"], "rel-flexdaemonset")

    def test_the_self_test_brings_its_template_and_takes_its_own_node(self):
        objects = render(flexdaemonset())
        template = objects.one("FlexDaemonsetTemplate")
        self.assertIn("helm.sh/hook", template["metadata"]["annotations"])
        pod = objects.one("Pod", "-selftest")["spec"]["containers"][0]
        self.assertIn("--node=$(NODE_NAME)", pod["args"])
        self.assertEqual(pod["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName")

    def test_values_that_cannot_work(self):
        for refit, message in (
            ({"hysteresisPercent": 101}, "at '/flexdaemonset/refit/hysteresisPercent': maximum"),
            ({"inFlight": 0}, "at '/flexdaemonset/refit/inFlight': minimum"),
            ({"perHour": 1}, "additional properties 'perHour' not allowed"),
        ):
            with self.assertRaisesRegex(Refused, message):
                render(flexdaemonset(refit=refit))

    def test_lint(self):
        helm(flexdaemonset(), "lint", str(ROOT / "charts/podshaper"), "--strict")


if __name__ == "__main__":
    unittest.main()
