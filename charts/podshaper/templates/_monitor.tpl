{{/* A ServiceMonitor or a PodMonitor: they differ in the name of one field */}}
{{- define "podshaper.monitor" -}}
{{- with .values.metrics.monitor -}}
{{- if .enabled -}}
{{- /* a metric's own label `namespace` is that of the pods it counts */}}
{{- $endpoint := dict "port" "metrics" "honorLabels" true -}}
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
{{- if and $.values.metrics.auth (eq $.values.tls.mode "existingSecret") }}
---
{{ include "podshaper.monitor.ca" $ }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The Secret of the user has no `ca.crt`; the CA is a value. */}}
{{- define "podshaper.monitor.ca" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .fullname }}-metrics-ca
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
data:
  ca.crt: {{ toJson .values.tls.existingSecret.caBundle }}
{{- end -}}

{{- define "podshaper.monitor.https" -}}
scheme: https
tlsConfig:
  serverName: {{ include "podshaper.serverName" . }}
  {{- if eq .values.tls.mode "existingSecret" }}
  ca: {configMap: {name: {{ .fullname }}-metrics-ca, key: ca.crt}}
  {{- else }}
  ca: {secret: {name: {{ include "podshaper.tlsSecret" . }}, key: ca.crt}}
  {{- end }}
{{- with dig "tokenSecret" "name" "" .values.metrics.monitor }}
authorization:
  credentials: {name: {{ . }}, key: {{ $.values.metrics.monitor.tokenSecret.key | default "token" }}}
{{- end }}
{{- end -}}
