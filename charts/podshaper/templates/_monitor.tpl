{{/* A ServiceMonitor or a PodMonitor: they differ in the name of one field */}}
{{- define "podshaper.monitor" -}}
{{- with .values.metrics.monitor -}}
{{- if .enabled -}}
{{- $endpoint := dict "port" "metrics" -}}
{{- if $.values.metrics.auth -}}
{{- include "podshaper.overlay" (dict "base" $endpoint "over" (include "podshaper.monitor.https" $ | fromYaml)) -}}
{{- end -}}
{{- include "podshaper.overlay" (dict "base" $endpoint "over" .endpoint) -}}
apiVersion: monitoring.coreos.com/v1
kind: {{ .kind }}
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- merge (include "podshaper.labels" (list $ "webhook") | fromYaml) (.labels | default dict) | toYaml | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "podshaper.selectorLabels" (list $ "webhook") | nindent 6 }}
  {{ ternary "podMetricsEndpoints" "endpoints" (eq .kind "PodMonitor") }}:
  - {{- toYaml $endpoint | nindent 4 }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "podshaper.monitor.https" -}}
scheme: https
tlsConfig:
  serverName: {{ include "podshaper.serverName" . }}
  ca: {secret: {name: {{ include "podshaper.tlsSecret" . }}, key: ca.crt}}
{{- with dig "tokenSecret" "name" "" .values.metrics.monitor }}
authorization:
  credentials: {name: {{ . }}, key: {{ $.values.metrics.monitor.tokenSecret.key | default "token" }}}
{{- end }}
{{- end -}}
