{{- define "podshaper.service" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ .fullname }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
  {{- with .values.service.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with .values.service.ipFamilyPolicy }}
  ipFamilyPolicy: {{ . }}
  {{- end }}
  {{- with .values.service.ipFamilies }}
  ipFamilies: {{- toYaml . | nindent 2 }}
  {{- end }}
  selector: {{- include "podshaper.selectorLabels" (list . "webhook") | nindent 4 }}
  ports:
  - {name: webhook, port: 443, targetPort: webhook}
  - {name: metrics, port: {{ .values.ports.metrics }}, targetPort: metrics}
{{- end -}}
