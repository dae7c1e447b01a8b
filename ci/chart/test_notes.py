"""What a user reads after `helm install`."""

import re
import unittest

import yaml

from rendering import peerpods, render
from second_webhook import chart_with_second_webhook

# NOTES.txt as an object, since only an installation prints it
AS_OBJECT = """
kind: Notes
metadata: {name: notes}
text: |
  {{- include (print $.Template.BasePath "/NOTES.txt") . | nindent 2 }}
"""


class Notes(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        directory, cls.chart = chart_with_second_webhook()
        cls.addClassCleanup(directory.cleanup)
        (cls.chart / "templates/notes.yaml").write_text(AS_OBJECT, encoding="utf-8")

    def notes(self, values, **where):
        return render(values, chart=self.chart, **where).one("Notes")["text"]

    def test_what_to_try_first_is_a_peer_pod(self):
        text = self.notes(peerpods(targetRuntimeClass="kata-a,kata-b"))
        pod = yaml.safe_load(re.search(r"<<'POD'\n(.*?)\n *POD\n", text, re.DOTALL)[1])
        self.assertEqual((pod["kind"], pod["spec"]["runtimeClassName"]), ("Pod", "kata-a"))
        self.assertIn("helm test rel --namespace sys", text)

    def test_each_webhook_that_is_on_has_its_say(self):
        both = self.notes({**peerpods(), "everypod": {"enabled": True}})
        self.assertIn("everypod sees every pod.", both)
        self.assertIn("what peerpods makes of a pod", both)
        self.assertNotIn("what peerpods makes of a pod", self.notes({"everypod": {"enabled": True}}))

    def test_where_nodes_get_their_capacity_from(self):
        self.assertIn("Nodes must advertise kata.peerpods.io/vm", self.notes(peerpods()))
        self.assertNotIn("Nodes must advertise", self.notes(peerpods(nodeCapacity={"enabled": True})))

    def test_with_nothing_turned_on(self):
        text = self.notes({})
        self.assertIn("Nothing is installed yet", text)
        self.assertIn("--set arch.enabled=true", text)
        self.assertIn("The webhooks of this chart: arch, custom-scheduler-annotations, distributor, everypod, flexdaemonset, peerpods.", text)

    def test_a_release_in_default_is_warned_about(self):
        self.assertIn("WARNING", self.notes(peerpods(), namespace="default"))
        self.assertNotIn("WARNING", self.notes(peerpods()))


if __name__ == "__main__":
    unittest.main()
