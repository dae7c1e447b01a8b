{{/* The configuration file of the webhook, if it has one */}}
{{- define "podshaper.config" -}}
{{- with .own.config -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list $ "webhook") | nindent 4 }}
data:
  config.yaml: |
    {{- toYaml . | nindent 4 }}
{{- end -}}
{{- end -}}

{{/* The flags of the decision: the webhook's own flags and its configuration file */}}
{{- define "podshaper.config.args" -}}
{{- range .own.args }}
- {{ . | quote }}
{{- end }}
{{- if .own.config }}
- --config=/etc/podshaper/config.yaml
{{- end }}
{{- end -}}

{{- define "podshaper.config.mount" -}}
{{- if .own.config }}
- {name: config, mountPath: /etc/podshaper, readOnly: true}
{{- end }}
{{- end -}}

{{- define "podshaper.config.volume" -}}
{{- if .own.config }}
- name: config
  configMap: {name: {{ .fullname }}}
{{- end }}
{{- end -}}
