"""The alerting rules of all webhooks: promtool accepts them, each alert fires in a test, and each has a runbook."""

import pathlib
import re
import subprocess
import tempfile
import unittest

import yaml

from rendering import ROOT, render

WEBHOOKS = ["arch", "custom-scheduler-annotations", "distributor", "flexdaemonset", "peerpods"]
TESTS = pathlib.Path(__file__).with_name("alerts_test.yaml")


def rule_groups(per_object=True):
    values = {name: {"enabled": True} for name in WEBHOOKS}
    for name in ("custom-scheduler-annotations", "distributor"):
        values[name]["metrics"] = {"auth": True, "perObject": per_object}
    objects = render({"defaults": {"metrics": {"rules": {"enabled": True}}}, **values})
    return [group for rule in objects.of("PrometheusRule") for group in rule["spec"]["groups"]]


def promtool(*arguments):
    build = ROOT / "ci/go/build"
    subprocess.run([build, "promtool"], check=True)
    folder = subprocess.run([build, "--path", "promtool"], check=True, capture_output=True, text=True).stdout.strip()
    run = subprocess.run([f"{folder}/promtool", *arguments], capture_output=True, text=True, check=False)
    if run.returncode:
        raise AssertionError(run.stdout + run.stderr)


class Alerts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.groups = rule_groups()
        cls.rules = [rule for group in cls.groups for rule in group["rules"]]

    def test_promtool_accepts_the_rules_and_their_tests(self):
        with tempfile.TemporaryDirectory() as folder:
            rules, tests = pathlib.Path(folder, "rules.yaml"), pathlib.Path(folder, "alerts_test.yaml")
            rules.write_text(yaml.safe_dump({"groups": self.groups}), encoding="utf-8")
            tests.write_text(TESTS.read_text(encoding="utf-8"), encoding="utf-8")
            promtool("check", "rules", "--lint=all", str(rules))
            promtool("test", "rules", str(tests))

    def test_each_alert_fires_in_a_test(self):
        tests = yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]
        fired = {case["alertname"] for test in tests for case in test["alert_rule_test"] if case["exp_alerts"]}
        self.assertEqual(fired, {rule["alert"] for rule in self.rules})

    def test_each_runbook_url_leads_to_a_section(self):
        headings = re.findall(r"(?m)^## (\w+)$", (ROOT / "docs/runbooks.md").read_text(encoding="utf-8"))
        anchors = {heading.lower() for heading in headings}
        linked = {rule["annotations"]["runbook_url"].split("#")[1] for rule in self.rules}
        self.assertEqual(linked, anchors)

    def test_each_webhook_has_the_common_alerts(self):
        for name in WEBHOOKS:
            alerts = {rule["alert"] for rule in self.rules if rule["labels"]["webhook"] == name}
            self.assertLessEqual({"PodshaperFailsOpen", "PodshaperDown", "PodshaperCertificateExpires"}, alerts, name)

    def test_alert_names_a_namespace_only_if_the_metric_does(self):
        """Without perObject, `namespace` would be the label that Prometheus gives to the webhook's own pod."""
        for group in rule_groups(per_object=False):
            for rule in group["rules"]:
                self.assertNotIn("namespace", rule["expr"] + rule["annotations"]["summary"], rule["alert"])


if __name__ == "__main__":
    unittest.main()
