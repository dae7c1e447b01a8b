{{/*
Selectors and conditions of the user add to the exclusions. They cannot remove an exclusion, because those prevent deadlocks.
*/}}
{{- define "podshaper.configuration" -}}
{{- $values := .values -}}
{{- $tls := $values.tls -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: {{ .configurationName }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
  {{- $annotations := dict }}
  {{- if eq $tls.mode "certManager" }}
  {{- $_ := set $annotations "cert-manager.io/inject-ca-from" (printf "%s/%s" .root.Release.Namespace .fullname) }}
  {{- end }}
  {{- with merge $annotations ($values.webhookAnnotations | default dict) }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
webhooks:
{{- $pods := dict "apiGroups" (list "") "apiVersions" (list "v1") "resources" (list "pods") "operations" (list "CREATE") "scope" "Namespaced" }}
{{- /* a static pod's image in the API: the kubelet runs it as its file says, whatever becomes of the image */}}
{{- $mirror := dict "name" "podshaper.dev/not-a-mirror-pod" "expression" "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))" }}
{{- $conditions := concat (list $mirror) (.own.matchConditions | default list) ($values.matchConditions | default list) }}
{{- $rules := concat (list $pods) (.own.admissionRules | default list) }}
{{- $own := dict "rules" $rules "matchConditions" $conditions "objectSelector" $values.objectSelector }}
{{ include "podshaper.hook" (list . .name $own) }}
{{- range .own.hooks }}
{{- $hook := merge (dict) . (dict "rules" (list $pods)) }}
{{- if .selectsPods }}
{{- $_ := set $hook "objectSelector" $values.objectSelector }}
{{- $_ := set $hook "matchConditions" (concat (list $mirror) (.matchConditions | default list) ($values.matchConditions | default list)) }}
{{- end }}
{{ include "podshaper.hook" (list $ (printf "%s.%s" .name $.name) $hook) }}
{{- end }}
{{- end -}}

{{/* One webhook of the configuration. Input: (list WEBHOOK NAME HOOK), the hook with rules, matchConditions, objectSelector,
failurePolicy, namespaceSelector, kubeSystem (in kube-system alone) */}}
{{- define "podshaper.hook" -}}
{{- $webhook := index . 0 -}}
{{- $hook := index . 2 -}}
{{- $values := $webhook.values -}}
{{- $objectSelector := $hook.objectSelector | default dict -}}
{{- $namespaces := concat ($values.namespaceSelector.matchExpressions | default list) (dig "namespaceSelector" "matchExpressions" list $hook) -}}
- name: {{ index . 1 }}.podshaper.dev
  clientConfig:
    service:
      name: {{ $webhook.fullname }}
      namespace: {{ $webhook.root.Release.Namespace }}
      path: {{ $webhook.own.path }}
      port: 443
    {{- if eq $values.tls.mode "existingSecret" }}
    caBundle: {{ b64enc $values.tls.existingSecret.caBundle }}
    {{- end }}
  admissionReviewVersions: [v1]
  sideEffects: {{ $webhook.own.sideEffects | default "None" }}
  failurePolicy: {{ $hook.failurePolicy | default $values.failurePolicy }}
  reinvocationPolicy: {{ $values.reinvocationPolicy }}
  timeoutSeconds: {{ $values.timeoutSeconds }}
  rules: {{- toYaml $hook.rules | nindent 2 }}
  namespaceSelector:
    {{- if $hook.kubeSystem }}
    matchLabels: {kubernetes.io/metadata.name: kube-system}
    {{- else }}
    {{- with merge (dict) ($values.namespaceSelector.matchLabels | default dict) (dig "namespaceSelector" "matchLabels" dict $hook) }}
    matchLabels: {{- toYaml . | nindent 6 }}
    {{- end }}
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ $webhook.root.Release.Namespace }}]}
    - {key: podshaper.dev/release, operator: DoesNotExist}
    - {key: podshaper.dev/skip, operator: NotIn, values: ["true"]}
    {{- with $namespaces }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
  objectSelector:
    {{- with $objectSelector.matchLabels }}
    matchLabels: {{- toYaml . | nindent 6 }}
    {{- end }}
    matchExpressions:
    - {key: podshaper.dev/skip, operator: NotIn, values: ["true"]}
    {{- with $objectSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with $hook.matchConditions }}
  matchConditions: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
