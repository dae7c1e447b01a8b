"""Installation without Helm, uninstallation, and what a failed `helm test` leaves."""

from api import HELMS, ClusterTest, Failed, as_list, eventually, exists, get, helm, kubectl, long

from rendering import is_hook, render

EVERYTHING = {
    **{name: {"enabled": True} for name in ("arch", "custom-scheduler-annotations", "distributor", "flexdaemonset", "peerpods")},
    "defaults": {"nodeSelector": {"no": "where"}},
}
DEFINITIONS = (
    "flexdaemonsettemplates.flexdaemonsets.xai",
    "placements.podshaper.dev",
    "poddistributors.versprei.versprei.io",
)
# Kinds that the chart renders, apart from those of other projects.
KINDS = (
    "configmaps,deployments,leases,networkpolicies,poddisruptionbudgets,rolebindings,roles,secrets,serviceaccounts,services,"
    "clusterroles,clusterrolebindings,mutatingwebhookconfigurations,validatingadmissionpolicies,validatingadmissionpolicybindings,namespaces"
)


SELFTEST = "app.kubernetes.io/component=selftest"


def contents(release, namespace):
    """The objects with the labels of the release, without metadata and status."""
    selector = f"app.kubernetes.io/instance={release},app.kubernetes.io/part-of=podshaper"
    found = get(KINDS, "--namespace", namespace, "--selector", selector)["items"]
    return {
        f"{obj['kind']}/{obj['metadata']['name']}": {key: obj[key] for key in obj if key not in ("metadata", "status")}
        for obj in found
    }


def of_release(release, namespace):
    return sorted(contents(release, namespace))


class WithHelm3(ClusterTest):
    PROGRAM = HELMS["Helm 3"]

    def delete_definitions(self):
        kubectl("delete", "crd", *DEFINITIONS, "--ignore-not-found")

    def test_uninstall_leaves_the_definitions_alone(self):
        where = self.namespace("chart-uninstall")
        # Another class may still be deleting those that it applied.
        self.delete_definitions()
        self.addCleanup(self.delete_definitions)
        helm("install", "all", where, values=EVERYTHING, program=self.PROGRAM)
        self.assertIn("Deployment/all-arch", of_release("all", where))
        helm("uninstall", "all", where, "--wait", program=self.PROGRAM)
        self.assertEqual(of_release("all", where), [])
        for name in DEFINITIONS:
            self.assertTrue(exists("crd", name), name)
        # A release of the same name in the same namespace adopts them.
        helm("install", "all", where, values=EVERYTHING, program=self.PROGRAM)
        values = {**EVERYTHING, "crds": {"keep": False}}
        helm("upgrade", "all", where, values=values, program=self.PROGRAM)
        helm("uninstall", "all", where, "--wait", program=self.PROGRAM)
        for name in DEFINITIONS:
            eventually(lambda name=name: not exists("crd", name))

    @long
    def test_failed_test_leaves_nothing(self):
        where = self.namespace("chart-failed-test")
        self.addCleanup(self.delete_definitions)
        values = {name: EVERYTHING[name] for name in ("arch", "flexdaemonset")}
        self.install("broken", where, {**values, "defaults": EVERYTHING["defaults"]}, program=self.PROGRAM)
        with self.assertRaises(Failed):
            # No node takes the pods of the test. Helm waits as long for the end of a namespace.
            helm("test", "broken", where, "--timeout=20s", program=self.PROGRAM)
        self.assertEqual([name for name in of_release("broken", where) if "selftest" in name], [])
        self.assertEqual(kubectl("get", "flexdaemonsettemplates,pods", "--all-namespaces", "--selector", SELFTEST, "--output", "name"), "")


@long
class WithHelm4(WithHelm3):
    PROGRAM = HELMS["Helm 4"]


class WithoutHelm(ClusterTest):
    """`helm template | kubectl apply`, as GitOps tools do it."""

    def test_objects_are_accepted_on_either_side(self):
        where = self.namespace("chart-apply")
        objects = [obj for obj in render(EVERYTHING, release="plain", namespace=where) if not is_hook(obj)]
        self.addCleanup(kubectl, "delete", "--ignore-not-found", "--wait=false", "--filename", "-", stdin=as_list(objects))
        kubectl("apply", "--filename", "-", stdin=as_list(objects))
        before = contents("plain", where)
        # Nothing changes a second time, whichever side merges. (kubectl says "configured" for some patches that change nothing.)
        for options in ([], ["--server-side", "--force-conflicts"]):
            kubectl("apply", *options, "--filename", "-", stdin=as_list(objects))
            self.assertEqual(contents("plain", where), before, options)
