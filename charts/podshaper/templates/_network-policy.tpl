{{/*
One policy for each component that runs pods. Probes need no rule, because the kubelet of the node can always reach the pod. The
self-test and the DaemonSet receive no connections.
*/}}
{{- define "podshaper.networkPolicy" -}}
{{- with .values.networkPolicy -}}
{{- if .enabled -}}
{{- $apiServer := list }}
{{- range .apiServerPorts }}
{{- $apiServer = append $apiServer (dict "port" .) }}
{{- end }}
{{- $toAPIServer := list (dict "ports" $apiServer) }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list $ "webhook") | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "podshaper.selectorLabels" (list $ "webhook") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  ingress:
  - ports: [{port: webhook}]
    {{- with .webhookFrom }}
    from: {{- toYaml . | nindent 4 }}
    {{- end }}
  - ports: [{port: metrics}]
    {{- with .metricsFrom }}
    from: {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with concat (ternary $toAPIServer list $.callsAPI) ($.own.egress | default list) (.egress | default list) }}
  egress: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- range $component, $egress := include "podshaper.networkPolicy.callers" $ | fromYaml }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ $.fullname }}-{{ $component }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list $ $component) | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "podshaper.selectorLabels" (list $ $component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress: {{- concat $toAPIServer ($egress | default list) | toYaml | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The components that only call the API server, each with further egress rules: the self-test decides as the webhook does */}}
{{- define "podshaper.networkPolicy.callers" -}}
{{- $callers := dict }}
{{- if include "podshaper.hasSelftest" . }}
{{- $_ := set $callers "selftest" (concat (.own.egress | default list) (.values.networkPolicy.egress | default list)) }}
{{- end }}
{{- if dig "nodeCapacity" "enabled" false .values }}
{{- $_ := set $callers "node-capacity" list }}
{{- end }}
{{- toYaml $callers }}
{{- end -}}
