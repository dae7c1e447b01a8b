"""The dashboard: its queries are PromQL, and ask for metrics that the reference lists."""

import json
import re
import unittest

from rendering import CHART, ROOT
from test_alerts import WEBHOOKS, promtool, rule_groups

REFERENCE = ROOT / "docs/metrics.md"
SUFFIXES = ("_bucket", "_count", "_sum")


def queries():
    panels = json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", [])]


class Dashboard(unittest.TestCase):
    def test_each_webhook_has_a_row(self):
        panels = json.loads((CHART / "files/dashboard.json").read_text(encoding="utf-8"))["panels"]
        rows = {panel["title"] for panel in panels if panel["type"] == "row"}
        self.assertEqual(rows, {"All webhooks", *WEBHOOKS})

    def test_queries_are_promql(self):
        for query in queries():
            with self.subTest(query):
                promtool("promql", "--experimental", "format", query.replace("$webhook", "arch"))

    def test_queries_of_dashboard_and_alerts_name_documented_metrics(self):
        documented = set(re.findall(r"`(\w+)`", REFERENCE.read_text(encoding="utf-8")))
        rules = [rule["expr"] for group in rule_groups() for rule in group["rules"]]
        for query in [*queries(), *rules]:
            for name in re.findall(r"(?:podshaper|process)_\w+", query):
                base = next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
                self.assertIn(base, documented, query)


if __name__ == "__main__":
    unittest.main()
