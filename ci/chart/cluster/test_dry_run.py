"""Every object of the matrix is one that the API server would take, with no field that it doesn't know."""

import json
import pathlib
import subprocess

from api import ClusterTest, Failed, as_list, eventually, get, kubectl

from matrix import matrix
from rendering import ROOT, render

# where the definitions of others' kinds come from: how to find the module's folder, and the files in it
DEFINITIONS = {
    "cert-manager.io": (
        [
            "go",
            "-C",
            str(ROOT / "ci/go/cert-manager"),
            "mod",
            "download",
            "-json",
            "github.com/cert-manager/cert-manager",
        ],
        ["deploy/crds/cert-manager.io_certificates.yaml", "deploy/crds/cert-manager.io_issuers.yaml"],
    ),
    "monitoring.coreos.com": (
        ["go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator@v0.85.0"],
        [
            f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}s.yaml"
            for kind in ("podmonitor", "servicemonitor")
        ],
    ),
}


def served(group):
    return kubectl("api-resources", "--api-group", group, "--output", "name").split()


def established(definition):
    """Whether it is; kubectl wait fails on a definition that is too new to have conditions."""
    conditions = get("--filename", str(definition))["status"].get("conditions") or []
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


class DryRun(ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.missing = set()
        for group, (module, files) in DEFINITIONS.items():
            if not served(group):
                try:
                    folder = json.loads(subprocess.run(module, capture_output=True, text=True, check=True).stdout)[
                        "Dir"
                    ]
                except (OSError, subprocess.CalledProcessError):
                    cls.missing.add(group)
                    continue
                for file in files:
                    path = pathlib.Path(folder, file)
                    kubectl("create", "--filename", str(path))
                    cls.addClassCleanup(kubectl, "delete", "--filename", str(path))
                    eventually(lambda path=path: established(path))
        cls.release = f"r{cls.RUN}"
        cls.where = cls.namespace("chart-dry-run")
        # what the Role and the pods of the hooks are created after
        selftest = f"{cls.release}-peerpods-selftest"
        cls.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": selftest}})
        for name in (selftest, f"{cls.release}-peerpods-check"):
            cls.create(
                {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": cls.where}}
            )

    def test_the_matrix(self):
        for name, values in matrix():
            objects = [
                o
                for o in render(values, release=self.release, namespace=self.where)
                if o["apiVersion"].split("/")[0] not in self.missing
            ]
            with self.subTest(name):
                try:
                    kubectl(
                        "apply",
                        "--server-side",
                        "--force-conflicts",
                        "--dry-run=server",
                        "--validate=strict",
                        "--filename",
                        "-",
                        stdin=as_list(objects),
                    )
                except Failed as refusal:
                    self.fail(str(refusal))
        if self.missing:
            self.skipTest(f"all but the kinds of {', '.join(self.missing)}: needs go, to fetch their definitions")
