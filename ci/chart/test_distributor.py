"""What only distributor has: the definitions of its kinds, who may use them, and what the webhook may do."""

import unittest

import yaml
from rendering import ROOT, Refused, container, helm, render, webhook


def distributor(**block):
    return {"distributor": {"enabled": True, **block}}


class Definitions(unittest.TestCase):
    def test_they_are_the_generated_ones(self):
        objects = render(distributor())
        for plural in ("poddistributors", "placements"):
            generated = yaml.safe_load((ROOT / f"crds/{plural}.yaml").read_text(encoding="utf-8"))
            rendered = objects.one("CustomResourceDefinition", generated["metadata"]["name"])
            self.assertEqual(rendered["spec"], generated["spec"])

    def test_not_what_another_release_has(self):
        names = [crd["metadata"]["name"] for crd in render({"crds": {"except": ["placements"]}, **distributor()}).of("CustomResourceDefinition")]
        self.assertEqual(names, ["poddistributors.versprei.versprei.io"])
        none = render({"crds": {"except": ["placements", "poddistributors"]}, **distributor()})
        self.assertEqual(none.of("CustomResourceDefinition"), [])
        self.assertTrue(none.one("ClusterRole", "rel-distributor-view"))
        with self.assertRaises(Refused):
            render({"crds": {"except": ["pods"]}, **distributor()})

    def test_people_write_distributors_and_read_ledgers(self):
        roles = {r["metadata"]["name"]: r for r in render(distributor()).of("ClusterRole")}
        resources = {
            role: {resource for rule in roles[f"rel-distributor-{role}"]["rules"] for resource in rule["resources"]}
            for role in ("view", "edit")
        }
        self.assertEqual(resources, {"view": {"poddistributors", "placements"}, "edit": {"poddistributors"}})


class Webhook(unittest.TestCase):
    def test_as_its_original(self):
        hook = webhook(distributor())
        self.assertEqual((hook["failurePolicy"], hook["timeoutSeconds"]), ("Ignore", 2))
        self.assertEqual(hook["clientConfig"]["service"]["path"], "/mutate")
        self.assertEqual(hook["sideEffects"], "NoneOnDryRun")

    def test_only_pods_of_controllers_reach_it(self):
        conditions = {c["name"]: c["expression"] for c in webhook(distributor())["matchConditions"]}
        self.assertIn("owner.?controller.orValue(false)", conditions["podshaper.dev/has-a-controller"])

    def rights(self, values):
        (role,) = (r for r in render(values).of("ClusterRole") if r["metadata"]["name"] == "rel-distributor")
        return {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }

    def test_it_reads_owners_and_nothing_more_of_them(self):
        owners = {"deployments", "replicasets", "statefulsets", "jobs", "cronjobs", "replicationcontrollers"}
        rights = self.rights(distributor())
        self.assertEqual({verb for _, resource, verb in rights if resource in owners}, {"get"})
        self.assertEqual({resource for _, resource, _ in rights} & owners, owners)

    def test_foreign_owners_are_named(self):
        foreign = {"apiGroup": "apps.kruise.io", "resources": ["clonesets", "statefulsets"]}
        more = self.rights(distributor(owners=[foreign])) - self.rights(distributor())
        self.assertEqual(more, {("apps.kruise.io", resource, "get") for resource in foreign["resources"]})
        for wrong, message in (
            ([{"apiGroup": "a b", "resources": ["x"]}], "at '/distributor/owners/0/apiGroup'"),
            ([{"apiGroup": "a", "resources": ["*"]}], "at '/distributor/owners/0/resources/0'"),
            ([{"apiGroup": "a", "resources": []}], "at '/distributor/owners/0/resources'"),
        ):
            with self.assertRaisesRegex(Refused, message):
                render(distributor(owners=wrong))

    def test_its_lease_is_its_own(self):
        variables = {v["name"]: v.get("value") for v in container(distributor())["env"]}
        self.assertEqual(variables["PODSHAPER_LEASE"], "rel-distributor")

    def test_the_self_test_brings_a_workload_and_may_read_it(self):
        objects = render(distributor())
        pod = objects.one("Pod", "-selftest")["spec"]["containers"][0]
        owner = objects.one("ReplicaSet")
        place = owner["metadata"]["namespace"]
        self.assertIn(f"--owner=/apis/apps/v1/namespaces/{place}/replicasets/selftest", pod["args"])
        self.assertEqual(owner["spec"]["replicas"], 0)
        self.assertEqual(objects.one("PodDistributor")["spec"]["target"]["kind"], "ReplicaSet")
        (role,) = (r for r in objects.of("Role") if r["metadata"]["namespace"] == place)
        self.assertIn({"apiGroups": ["apps"], "resources": ["replicasets"], "resourceNames": ["selftest"], "verbs": ["get"]}, role["rules"])

    def test_lint(self):
        helm(distributor(), "lint", str(ROOT / "charts/podshaper"), "--strict")


if __name__ == "__main__":
    unittest.main()
