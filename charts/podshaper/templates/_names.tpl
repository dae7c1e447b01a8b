{{/* The labels that select the pods of one component of a webhook. Input: (list WEBHOOK COMPONENT) */}}
{{- define "podshaper.selectorLabels" -}}
{{- $webhook := first . -}}
app.kubernetes.io/name: {{ $webhook.name }}
app.kubernetes.io/instance: {{ $webhook.root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* The labels of every object. Input: (list WEBHOOK COMPONENT) */}}
{{- define "podshaper.labels" -}}
{{- $root := (first .).root -}}
{{ include "podshaper.selectorLabels" . }}
app.kubernetes.io/part-of: podshaper
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/*
The labels of pods. Nothing here changes with the chart's version, which would roll every pod.

Podshaper's own pods wear the opt-out label that anyone may use, so that none of them ever waits for a webhook of this
release or another: two releases that are both down can't keep each other down. Whoever abuses the label gains nothing
that the documented opt-out didn't offer; where it must not be offered, forbid the label with a ValidatingAdmissionPolicy.
Input: (list WEBHOOK COMPONENT)
*/}}
{{- define "podshaper.podLabels" -}}
{{- $labels := include "podshaper.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "podshaper" -}}
{{- $_ := set $labels "podshaper.dev/skip" "true" -}}
{{- merge $labels ((first .).values.podLabels | default dict) | toYaml -}}
{{- end -}}

{{- define "podshaper.image" -}}
{{- with .values.image -}}
{{ .repository }}{{ with .digest }}@{{ . }}{{ else }}:{{ .tag | default $.root.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/*
The Secret that holds the serving certificate. A release that changes its tls.mode must not find the other mode's Secret
under the same name: cert-manager leaves its own behind, and Helm won't take over what it didn't create.
*/}}
{{- define "podshaper.tlsSecret" -}}
{{- with .values.tls -}}
{{ get (dict "selfManaged" (print $.fullname "-self-managed") "certManager" (print $.fullname "-tls") "existingSecret" .existingSecret.name) .mode }}
{{- end -}}
{{- end -}}

{{/* The name that the API server asks for, which the certificate must bear */}}
{{- define "podshaper.serverName" -}}
{{ .fullname }}.{{ .root.Release.Namespace }}.svc
{{- end -}}
