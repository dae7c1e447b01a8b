{{/* The blocks of the webhooks, by name, as YAML */}}
{{- define "podshaper.blocks" -}}
{{- omit .Values "defaults" "tls" "crds" "global" "enabled" "fullnameOverride" "extraObjects" "dashboard" | toYaml -}}
{{- end -}}

{{/* The name of a webhook's objects. Input: root, name, block */}}
{{- define "podshaper.fullname" -}}
{{- .block.fullnameOverride | default (printf "%s-%s" (.root.Values.fullnameOverride | default .root.Release.Name) .name) -}}
{{- end -}}

{{/* The labels that select the pods of one component of a webhook. Input: (list WEBHOOK COMPONENT) */}}
{{- define "podshaper.selectorLabels" -}}
{{- $webhook := first . -}}
app.kubernetes.io/name: {{ $webhook.name }}
app.kubernetes.io/instance: {{ $webhook.root.Release.Name }}
app.kubernetes.io/component: {{ last . }}
{{- end -}}

{{/* The labels of every object. Those of the chart override the common ones. Input: (list WEBHOOK COMPONENT) */}}
{{- define "podshaper.labels" -}}
{{- $root := (first .).root -}}
{{- $labels := include "podshaper.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "podshaper" -}}
{{- $_ := set $labels "app.kubernetes.io/version" $root.Chart.AppVersion -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") -}}
{{- merge $labels ((first .).values.commonLabels | default dict) | toYaml -}}
{{- end -}}

{{/*
The labels of pods. They do not depend on the chart's version, because a change would restart every pod.

The pods of Podshaper have the public opt-out label, so no webhook of any release delays them. Two releases that are down at the same time
could otherwise block each other. To forbid the label for other pods, use a ValidatingAdmissionPolicy.
Input: (list WEBHOOK COMPONENT)
*/}}
{{- define "podshaper.podLabels" -}}
{{- $labels := include "podshaper.selectorLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/part-of" "podshaper" -}}
{{- $_ := set $labels "podshaper.dev/skip" "true" -}}
{{- merge $labels ((first .).values.podLabels | default dict) | toYaml -}}
{{- end -}}

{{/* The image. A registry replaces the host of the repository, if it has one: a first part with a dot or a port. */}}
{{- define "podshaper.image" -}}
{{- with .values.image -}}
{{- $repository := .repository -}}
{{- with .registry | default (dig "imageRegistry" "" ($.root.Values.global | default dict)) -}}
{{- $host := splitList "/" $repository | first -}}
{{- if and (contains "/" $repository) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) -}}
{{- $repository = trimPrefix (print $host "/") $repository -}}
{{- end -}}
{{- $repository = print . "/" $repository -}}
{{- end -}}
{{ $repository }}{{ with .digest }}@{{ . }}{{ else }}:{{ .tag | default $.root.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/*
The Secret of the serving certificate. Each tls.mode has another name, because cert-manager leaves its Secret behind and Helm does not
adopt objects that it did not create.
*/}}
{{- define "podshaper.tlsSecret" -}}
{{- with .values.tls -}}
{{ get (dict "selfManaged" (print $.fullname "-self-managed") "certManager" (print $.fullname "-tls") "existingSecret" .existingSecret.name) .mode }}
{{- end -}}
{{- end -}}

{{/* The name that the API server connects to; the certificate must include it */}}
{{- define "podshaper.serverName" -}}
{{ .fullname }}.{{ .root.Release.Namespace }}.svc
{{- end -}}
