{{/* Probes need no rule: the kubelet of the node can always reach the pod */}}
{{- define "podshaper.networkPolicy" -}}
{{- with .values.networkPolicy -}}
{{- if .enabled -}}
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
  {{- if or $.callsAPI $.own.egress .egress }}
  egress:
  {{- if $.callsAPI }}
  - ports: [{port: 443}, {port: 6443}]
  {{- end }}
  {{- with concat ($.own.egress | default list) (.egress | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}
