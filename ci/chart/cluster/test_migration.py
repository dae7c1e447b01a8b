"""The steps of "Migration from ..." on the page of each webhook."""

from api import HELMS, ClusterTest, Failed, as_list, exists, get, helm, kubectl, long

from originals import ORIGINALS
from rendering import Objects, render

OWN_KINDS = ("placements.podshaper.dev",)


class WithHelm3(ClusterTest):
    PROGRAM = HELMS["Helm 3"]
    # Helm 4 applies the definitions over the fields of kubectl.
    TAKE_OVER = ("--take-ownership",)

    def migrate(self, webhook):
        """Returns the original's objects as they were before, and the namespace."""
        configuration, definitions, objects = ORIGINALS[webhook]
        where = self.namespace(f"from-{webhook}")
        for definition in definitions:
            name = definition["metadata"]["name"]
            self.addCleanup(kubectl, "delete", "crd", name, "--ignore-not-found")
        for plural in OWN_KINDS:
            self.addCleanup(kubectl, "delete", "crd", plural, "--ignore-not-found")
        self.addCleanup(kubectl, "delete", "mutatingwebhookconfiguration", configuration["metadata"]["name"], "--ignore-not-found")
        kubectl("apply", "--filename", "-", stdin=as_list([*definitions, configuration]))
        for definition in definitions:
            kubectl("wait", "--for=condition=Established", "crd", definition["metadata"]["name"])
        if before := objects(where):
            kubectl("apply", "--filename", "-", stdin=as_list(before))
        values = {webhook: {"enabled": True, "nodeSelector": {"no": "where"}}}

        kubectl("delete", "mutatingwebhookconfiguration", configuration["metadata"]["name"])
        self.addCleanup(helm, "uninstall", "new", where, "--ignore-not-found", program=self.PROGRAM)
        helm("install", "new", where, *(self.TAKE_OVER if definitions else ()), values=values, program=self.PROGRAM)
        self.check_installed(values, where)
        for obj in before:
            with self.subTest(obj["kind"]):
                self.check_kept(obj)
        # The next upgrade needs no special option.
        helm("upgrade", "new", where, values=values, program=self.PROGRAM)
        return before, where

    def check_installed(self, values, where):
        """Every definition of the chart belongs to the release and has the chart's schema."""
        for wanted in Objects(render(values, release="new", namespace=where)).of("CustomResourceDefinition"):
            with self.subTest(wanted["metadata"]["name"]):
                found = get("crd", wanted["metadata"]["name"])
                self.assertEqual(found["metadata"]["annotations"]["meta.helm.sh/release-name"], "new")
                (version,) = found["spec"]["versions"]
                spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
                (version,) = wanted["spec"]["versions"]
                self.assertEqual(spec, version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"])

    def check_kept(self, obj):
        """The object has its fields, and can be written as it is."""
        meta = obj["metadata"]
        scope = ["--namespace", meta["namespace"]] if "namespace" in meta else []
        found = get(obj["kind"].lower(), meta["name"], *scope)
        self.assertEqual({**found["spec"], **obj["spec"]}, found["spec"])
        kubectl("apply", "--filename", "-", stdin=obj)

    @long
    def test_peerpods(self):
        self.migrate("peerpods")

    @long
    def test_arch(self):
        self.migrate("arch")

    @long
    def test_custom_scheduler_annotations(self):
        self.migrate("custom-scheduler-annotations")

    def test_distributor(self):
        _, where = self.migrate("distributor")
        # Helm has deleted neither the definition nor its objects.
        helm("uninstall", "new", where, program=self.PROGRAM)
        self.assertTrue(exists("poddistributor", "nginx-deployment", where))

    @long
    def test_flexdaemonset(self):
        _, where = self.migrate("flexdaemonset")
        kubectl("delete", "flexdaemonsetnodepods", "--all", "--all-namespaces")
        kubectl("delete", "crd", "flexdaemonsetnodepods.flexdaemonsets.xai")
        helm("uninstall", "new", where, program=self.PROGRAM)
        self.assertTrue(exists("flexdaemonsettemplate", "originals-template"))

    def test_definitions_of_the_original_are_not_taken_over_silently(self):
        _, definitions, _ = ORIGINALS["distributor"]
        where = self.namespace("from-refused")
        self.addCleanup(kubectl, "delete", "crd", definitions[0]["metadata"]["name"], "--ignore-not-found")
        kubectl("apply", "--filename", "-", stdin=as_list(definitions))
        with self.assertRaisesRegex(Failed, "cannot be imported into the current release"):
            helm("install", "new", where, values={"distributor": {"enabled": True}}, program=self.PROGRAM)


@long
class WithHelm4(WithHelm3):
    PROGRAM = HELMS["Helm 4"]
    TAKE_OVER = ("--take-ownership", "--force-conflicts")
