"""A pod from `kubectl get -o json` as YAML that a person reads: annotations, containers and their resources."""

import json
import sys

pod = json.load(sys.stdin)
print("metadata:")
print(f"  name: {pod['metadata']['name']}")
annotations = pod["metadata"].get("annotations", {})
if annotations:
    print("  annotations:")
for key, value in annotations.items():
    print(f"    {key}: {json.dumps(value) if not value.startswith('{') else repr(value)}")
print("spec:")
if "runtimeClassName" in pod["spec"]:
    print(f"  runtimeClassName: {pod['spec']['runtimeClassName']}")
for field in ("initContainers", "containers"):
    print(f"  {field}:")
    for container in pod["spec"].get(field, []):
        print(f"  - name: {container['name']}")
        print(f"    resources: {json.dumps(container.get('resources', {}))}")
