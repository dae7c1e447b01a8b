"""Values that can't work are refused, and the message says where and why."""

import copy
import json
import os
import re
import unittest
from concurrent.futures import ThreadPoolExecutor

import yaml

from rendering import CHART, Refused, peerpods, render

VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))

# values → what the message says
REFUSED = [
    ({"peerpod": {}}, "additional properties 'peerpod' not allowed"),
    (peerpods(replica=3), "at '/peerpods': additional properties 'replica' not allowed"),
    ({"defaults": {"enabled": True}}, "at '/defaults': additional properties 'enabled' not allowed"),
    ({"peerpods": {"enabled": "yes"}}, "at '/peerpods/enabled': got string, want boolean"),
    (peerpods(replicas=-1), "at '/peerpods/replicas': minimum: got -1, want 0"),
    (peerpods(config={"sizes": 1}), "at '/peerpods/config': additional properties 'sizes' not allowed"),
    (peerpods(config={"mode": "off"}), "at '/peerpods/config/mode': value must be one of 'enforce', 'audit'"),
    (peerpods(config={"headroom": {"memory": "10 percent"}}), "at '/peerpods/config/headroom/memory': '10 percent' does"),
    (peerpods(config={"fallback": {"vcpus": "-1"}}), "at '/peerpods/config/fallback/vcpus': '-1' does not match"),
    (peerpods(config={"placeholders": {"gpu": {"request": 1}}}), "at '/peerpods/config/placeholders': additional properties 'gpu'"),
    (
        peerpods(config={"runtimeClasses": {"a": {"runtimeClasses": {}}}}),
        "at '/peerpods/config/runtimeClasses/a': 'not' failed",
    ),
    (peerpods(replicas="3"), "at '/peerpods/replicas': got string, want"),
    (peerpods(failurePolicy="fail"), "at '/peerpods/failurePolicy': value must be one of 'Fail', 'Ignore'"),
    (
        peerpods(reinvocationPolicy="Always"),
        "at '/peerpods/reinvocationPolicy': value must be one of 'IfNeeded', 'Never'",
    ),
    (peerpods(timeoutSeconds=31), "at '/peerpods/timeoutSeconds': maximum: got 31, want 30"),
    (peerpods(timeoutSeconds=0), "at '/peerpods/timeoutSeconds': minimum: got 0, want 1"),
    (
        peerpods(image={"repository": "ghcr.io/podshaper/peerpods:latest"}),
        "at '/peerpods/image/repository': .* does not match pattern",
    ),
    (peerpods(image={"digest": "0123"}), "at '/peerpods/image/digest': '0123' does not match pattern"),
    (peerpods(image={"tag": 1.0}), "at '/peerpods/image/tag': got number, want string"),
    (
        peerpods(namespaceSelector={"team": "a"}),
        "at '/peerpods/namespaceSelector': additional properties 'team' not allowed",
    ),
    (
        peerpods(objectSelector={"matchExpressions": [{"key": "a", "operator": "In"}]}),
        "matchExpressions/0': missing property 'values'",
    ),
    (
        peerpods(objectSelector={"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
        "values': maxItems: got 1, want 0",
    ),
    (peerpods(matchConditions=[{"name": "a"}]), "at '/peerpods/matchConditions/0': missing property 'expression'"),
    (
        peerpods(matchConditions=[{"name": "podshaper.dev/not-a-mirror-pod", "expression": "true"}]),
        "at '/peerpods/matchConditions/0/name': 'not' failed",
    ),
    (peerpods(podDisruptionBudget={"minAvailable": "half"}), "minAvailable': 'half' does not match pattern"),
    (peerpods(topologySpreadConstraints=[{"maxSkew": 1}]), "missing properties 'topologyKey', 'whenUnsatisfiable'"),
    (peerpods(tolerations=[{"effect": "NoRun"}]), "at '/peerpods/tolerations/0/effect': value must be one of"),
    (peerpods(ports={"webhook": 65536}), "at '/peerpods/ports/webhook': maximum"),
    (peerpods(podLabels={"a": 1}), "at '/peerpods/podLabels/a': got number, want"),
    (peerpods(extraEnv=[{"name": "A", "value": 1}]), "at '/peerpods/extraEnv/0/value': got number, want string"),
    (peerpods(extraArgs=["max-in-flight=1"]), "at '/peerpods/extraArgs/0': 'max-in-flight=1' does not match pattern"),
    (peerpods(log={"level": "verbose"}), "at '/peerpods/log/level': value must be one of"),
    (peerpods(metrics={"monitor": {"kind": "Probe"}}), "at '/peerpods/metrics/monitor/kind': value must be one of"),
    ({"tls": {"mode": "none"}}, "at '/tls/mode': value must be one of 'selfManaged', 'certManager', 'existingSecret'"),
    (peerpods(tls={"mode": "none"}), "at '/peerpods/tls/mode': value must be one of"),
    (
        {"tls": {"selfManaged": {"leafLifetime": "90 days"}}},
        "at '/tls/selfManaged/leafLifetime': '90 days' does not match pattern",
    ),
    ({"tls": {"certManager": {"duration": "90d"}}}, "at '/tls/certManager/duration': '90d' does not match pattern"),
    ({"tls": {"certManager": {"issuerRef": {"kind": "ClusterIssuer"}}}}, "at '/tls/certManager/issuerRef': .*'name'"),
    (
        {"tls": {"existingSecret": {"caBundle": "MA=="}}},
        "at '/tls/existingSecret/caBundle': 'MA==' does not match pattern",
    ),
    ({"tls": {"existingSecret": {"secretName": "a"}}}, "additional properties 'secretName' not allowed"),
    (peerpods(targetRuntimeClass="Kata"), "at '/peerpods/targetRuntimeClass': 'Kata' does not match pattern"),
    (peerpods(podVMExtendedResource="vm"), "at '/peerpods/podVMExtendedResource': 'vm' does not match pattern"),
    (peerpods(podVMExtendedResource="node.kubernetes.io/vm"), "at '/peerpods/podVMExtendedResource': 'not' failed"),
    (peerpods(tlsMinVersion="1.3"), "at '/peerpods/tlsMinVersion': value must be one of"),
    (
        peerpods(tlsMinVersion="VersionTLS13", tlsCipherSuites="TLS_A"),
        "at '/peerpods/tlsCipherSuites': value must be ''",
    ),
    (peerpods(config="sizing: effective"), "at '/peerpods/config': got string, want object"),
    (peerpods(nodeCapacity={"count": -1}), "at '/peerpods/nodeCapacity/count': minimum: got -1, want 0"),
    (peerpods(nodeCapacity={"resource": "vm"}), "at '/peerpods/nodeCapacity/resource': 'vm' does not match pattern"),
    # a key with nothing but comments under it is null, and Helm then drops the chart's own
    ({"peerpods": None}, "missing property 'peerpods'"),
    ({"tls": None}, "missing property 'tls'"),
    (peerpods(timeoutSeconds=None), "at '/peerpods/timeoutSeconds': got null, want integer"),
    ({"defaults": {"ports": {"health": None}}}, "at '/defaults/ports': missing property 'health'"),
]


def paths(tree, path=()):
    for key, value in tree.items():
        yield (*path, key), value
        if isinstance(value, dict):
            yield from paths(value, (*path, key))


def put(values, path, value):
    """A copy of the values with this one at that path."""
    changed = copy.deepcopy(values)
    where = changed
    for key in path[:-1]:
        where = where.setdefault(key, {})
    where[path[-1]] = value
    return changed


def outcome(values):
    try:
        render(values)
        return "rendered"
    except Refused as refused:
        return str(refused)


class Schema(unittest.TestCase):
    def test_refused(self):
        for values, message in REFUSED:
            with self.subTest(json.dumps(values)), self.assertRaises(Refused) as refused:
                render(values)
            with self.subTest(json.dumps(values)):
                self.assertRegex(str(refused.exception), message)

    def test_null_and_empty_are_refused_or_rendered(self):
        """Never a template's error, which would tell a user about the chart's inside."""
        everything = peerpods(
            nodeCapacity={"enabled": True},
            networkPolicy={"enabled": True},
            metrics={"auth": True, "monitor": {"enabled": True}},
        )
        cases = []
        for path, value in paths(VALUES):
            for place in [path, ("peerpods", *path[1:])] if path[0] == "defaults" else [path]:
                for odd in [None] + [kind() for kind in (dict, list, str) if isinstance(value, kind)]:
                    cases.append((place, odd, put(everything, place, odd)))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for (place, odd, _), answer in zip(cases, pool.map(lambda case: outcome(case[2]), cases), strict=True):
                with self.subTest(".".join(place), value=odd):
                    self.assertRegex(answer, "^rendered$|values don't meet the specifications of the schema")

    def test_every_block_knows_every_default(self):
        """The list of names is written out for each block, so that a misspelt one is named in the message."""
        common = set(SCHEMA["$defs"]["webhook"]["properties"])
        self.assertEqual(set(VALUES["defaults"]), common)
        for name, block in SCHEMA["properties"].items():
            for pattern in block.get("patternProperties", {}):
                self.assertEqual(set(re.findall(r"\w+", pattern)) - {"enabled", "tls"}, common, name)

    def test_every_value_is_in_the_schema_and_the_other_way_round(self):
        own = set(SCHEMA["properties"]["peerpods"]["properties"])
        self.assertLessEqual(own, set(VALUES["peerpods"]))

    def test_a_parent_chart_may_hand_down_what_it_has_to(self):
        render({"global": {"imageRegistry": "x"}, "enabled": True})


if __name__ == "__main__":
    unittest.main()
