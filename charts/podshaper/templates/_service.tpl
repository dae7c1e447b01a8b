{{- define "podshaper.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .fullname }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
spec:
  selector: {{- include "podshaper.selectorLabels" (list . "webhook") | nindent 4 }}
  ports:
  - {name: webhook, port: 443, targetPort: webhook}
  - {name: metrics, port: {{ .values.ports.metrics }}, targetPort: metrics}
{{- end -}}
