{{/* The objects of a webhook. Input: a webhook completed by podshaper.resolve */}}
{{- define "podshaper.webhook" -}}
{{- $parts := list "check" "crds" "access" "admissionPolicy" "certificate" "config" "deployment" "service" "configuration" "disruptionBudget" "networkPolicy" "monitor" "prometheusRule" }}
{{- range ternary (append $parts "selftest") $parts (not (empty (include "podshaper.hasSelftest" .))) }}
{{- with include (print "podshaper." .) $ | trim | trimPrefix "---" | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end -}}
