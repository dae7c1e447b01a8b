"""The values of one webhook change no object of another."""

import re
import unittest

import yaml

from matrix import OPTIONS, TLS
from rendering import CHART, documents, peerpods, render
from second_webhook import chart_with_second_webhook

PINNED = {"image": {"digest": "sha256:" + "0" * 64}}


class TwoWebhooks(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory, cls.chart = chart_with_second_webhook()
        cls.addClassCleanup(directory.cleanup)

    def everypod(self, **values):
        """The text of each of its objects, by kind and name."""
        found = {}
        for text in documents({"everypod": {"enabled": True}, **values}, chart=self.chart):
            obj = yaml.load(text, yaml.CSafeLoader)
            if "everypod" in obj["metadata"]["name"]:
                found[obj["kind"], obj["metadata"]["name"]] = text
        return found

    def test_a_webhook_is_a_block_and_a_template(self):
        alone = self.everypod()
        for kind in (
            "Deployment",
            "Service",
            "ServiceAccount",
            "Secret",
            "PodDisruptionBudget",
            "MutatingWebhookConfiguration",
            "Role",
            "ClusterRole",
        ):
            self.assertIn((kind, "rel-everypod" + "-self-managed" * (kind == "Secret")), alone)
        self.assertIn("nodes", alone["ClusterRole", "rel-everypod"])
        self.assertIn("configmaps", alone["Role", "rel-everypod"])
        self.assertIn("failurePolicy: Fail", alone["MutatingWebhookConfiguration", "rel-everypod"])

    def test_whatever_one_block_says_the_others_objects_stay_byte_for_byte(self):
        alone = self.everypod()
        for name, options in OPTIONS.items():
            for mode, tls in TLS.items():
                with self.subTest(name, mode=mode):
                    block = {**options["peerpods"], **tls}
                    self.assertEqual(self.everypod(**peerpods(**block)), alone)

    def test_permissions_of_its_own_need_a_token(self):
        values = {"everypod": {"enabled": True}, "tls": {"mode": "certManager"}}
        spec = render(values, chart=self.chart).one("Deployment")["spec"]["template"]["spec"]
        self.assertIs(spec["automountServiceAccountToken"], True)


class Versions(unittest.TestCase):
    def test_a_new_chart_with_the_same_image_rolls_no_pod(self):
        directory, chart = chart_with_second_webhook()
        self.addCleanup(directory.cleanup)
        values = peerpods(**PINNED, nodeCapacity={"enabled": True})

        def pods():
            return [
                o["spec"]["template"] for o in render(values, chart=chart) if o["kind"] in ("Deployment", "DaemonSet")
            ]

        before = pods()
        text = (CHART / "Chart.yaml").read_text(encoding="utf-8")
        (chart / "Chart.yaml").write_text(
            re.sub(r"(?m)^(version|appVersion): .*", r"\1: 99.0.0", text), encoding="utf-8"
        )
        self.assertEqual(pods(), before)
        self.assertEqual(
            render(values, chart=chart).one("Deployment")["metadata"]["labels"]["helm.sh/chart"], "podshaper-99.0.0"
        )

    def test_the_chart_is_of_the_workspaces_version(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
        workspace = re.search(r'(?m)^version = "(.*)"', (CHART / "../../Cargo.toml").read_text(encoding="utf-8"))[1]
        self.assertEqual((chart["version"], chart["appVersion"]), (workspace, workspace))


if __name__ == "__main__":
    unittest.main()
