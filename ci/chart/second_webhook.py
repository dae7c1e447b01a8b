"""One webhook more than the chart has."""

import json
import pathlib
import shutil
import tempfile

from rendering import CHART

SECOND_BLOCK = """
everypod:
  enabled: false
  image:
    repository: example.com/everypod
  failurePolicy: Fail
"""

SECOND_TEMPLATE = """
{{- define "everypod.own" -}}
path: /mutate
rules:
  cluster:
  - {apiGroups: [""], resources: [nodes], verbs: [get, list, watch]}
  namespaced:
  - {apiGroups: [""], resources: [configmaps], verbs: [get]}
selftest:
  {apiVersion: v1, kind: Pod, metadata: {name: selftest}, spec: {containers: [{name: main, image: example.com/main}]}}
{{- end -}}
{{- define "everypod.notes" -}}
everypod sees every pod.
{{- end -}}
{{- if .Values.everypod.enabled }}
{{- $webhook := dict "root" $ "name" "everypod" }}
{{- include "podshaper.resolve" $webhook }}
{{- include "podshaper.webhook" $webhook }}
{{- end }}
"""


def chart_with_second_webhook():
    """A copy of the chart with it, added the way that a webhook is added: a block, a schema entry, a template.

    It sees every pod and fails closed, and needs API permissions, unlike peerpods. The caller removes the directory.
    """
    directory = tempfile.TemporaryDirectory()
    copy = pathlib.Path(directory.name, "podshaper")
    shutil.copytree(CHART, copy)
    with open(copy / "values.yaml", "a", encoding="utf-8") as values:
        values.write(SECOND_BLOCK)
    (copy / "templates/everypod.yaml").write_text(SECOND_TEMPLATE, encoding="utf-8")
    schema = json.loads((copy / "values.schema.json").read_text(encoding="utf-8"))
    schema["properties"]["everypod"] = {"$ref": "#/$defs/block"}
    (copy / "values.schema.json").write_text(json.dumps(schema), encoding="utf-8")
    return directory, copy
