{{/* All that every webhook has. Input: a webhook completed by podshaper.resolve */}}
{{- define "podshaper.webhook" -}}
{{- range list "crds" "access" "certificate" "config" "deployment" "service" "configuration" "disruptionBudget" "networkPolicy" "monitor" "selftest" }}
{{- with include (print "podshaper." .) $ | trim }}
---
{{ . }}
{{- end }}
{{- end }}
{{- end -}}
