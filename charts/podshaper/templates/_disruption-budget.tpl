{{- define "podshaper.disruptionBudget" -}}
{{- with .values.podDisruptionBudget -}}
{{- if .enabled -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list $ "webhook") | nindent 4 }}
spec:
  {{- if hasKey . "minAvailable" }}
  minAvailable: {{ .minAvailable }}
  {{- else }}
  maxUnavailable: {{ .maxUnavailable }}
  {{- end }}
  # a pod that is not ready serves no request and must not block a drain
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "podshaper.selectorLabels" (list $ "webhook") | nindent 6 }}
{{- end -}}
{{- end -}}
{{- end -}}
