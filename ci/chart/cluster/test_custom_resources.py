"""The API server accepts the definitions, and accepts and refuses the objects of ci/go/crd-check/cases.yaml as that file says."""

import yaml
from api import ClusterTest, Failed, eventually, get, kubectl

from rendering import ROOT

CASES = yaml.safe_load((ROOT / "ci/go/crd-check/cases.yaml").read_text(encoding="utf-8"))
DEFINITIONS = sorted((ROOT / "crds").glob("*.yaml"))


def without_type(error):
    """Before 1.35 the error of a rule names the type of the value."""
    return error.replace('Invalid value: "object": ', "Invalid value: ")


class CustomResources(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.where = cls.namespace("chart-objects")
        cls.api_versions, plurals = {}, []
        for file in DEFINITIONS:
            # Other tests may own the definition: it stays.
            kubectl("apply", "--server-side", "--force-conflicts", "--filename", str(file))
            spec = get("--filename", str(file))["spec"]
            (version,) = (each["name"] for each in spec["versions"] if each["storage"])
            cls.api_versions[spec["names"]["kind"]] = f"{spec['group']}/{version}"
            plurals.append(f"{spec['names']['plural']}.{spec['group']}")
        eventually(lambda: cls.served(plurals))

    @staticmethod
    def served(plurals):
        try:
            return kubectl("get", ",".join(plurals), "--all-namespaces", "--output", "name") is not None
        except Failed:
            return False

    def test_every_kind_has_cases(self):
        self.assertLessEqual({"FlexDaemonsetTemplate", "PodDistributor"}, {case["kind"] for case in CASES})
        self.assertLessEqual({case["kind"] for case in CASES}, set(self.api_versions))

    def test_objects_are_accepted_and_refused(self):
        for case in CASES:
            with self.subTest(case["kind"], spec=case["spec"]):
                metadata = {"generateName": "case-", "namespace": self.where}
                obj = {"apiVersion": self.api_versions[case["kind"]], "kind": case["kind"], "metadata": metadata, "spec": case["spec"]}
                if case["kind"] == "FlexDaemonsetTemplate":
                    del metadata["namespace"]  # cluster-scoped
                create = ("create", "--dry-run=server", "--filename", "-")
                if "refused" not in case:
                    kubectl(*create, stdin=obj)
                    continue
                with self.assertRaises(Failed) as refusal:
                    kubectl(*create, stdin=obj)
                self.assertIn(without_type(case["refused"]), without_type(str(refusal.exception)))
