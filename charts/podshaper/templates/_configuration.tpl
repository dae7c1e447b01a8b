{{/*
The user's selectors and conditions narrow the choice further; none of them can lift the exclusions that keep a cluster
out of deadlock.
*/}}
{{- define "podshaper.configuration" -}}
{{- $values := .values -}}
{{- $tls := $values.tls -}}
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata:
  name: {{ .fullname }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
  {{- $annotations := dict }}
  {{- if eq $tls.mode "certManager" }}
  {{- $_ := set $annotations "cert-manager.io/inject-ca-from" (printf "%s/%s" .root.Release.Namespace .fullname) }}
  {{- end }}
  {{- with merge $annotations ($values.webhookAnnotations | default dict) }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
webhooks:
- name: {{ .name }}.podshaper.dev
  clientConfig:
    service:
      name: {{ .fullname }}
      namespace: {{ .root.Release.Namespace }}
      path: {{ .own.path }}
      port: 443
    {{- if eq $tls.mode "existingSecret" }}
    caBundle: {{ b64enc $tls.existingSecret.caBundle }}
    {{- end }}
  admissionReviewVersions: [v1]
  sideEffects: {{ .own.sideEffects | default "None" }}
  failurePolicy: {{ $values.failurePolicy }}
  reinvocationPolicy: {{ $values.reinvocationPolicy }}
  timeoutSeconds: {{ $values.timeoutSeconds }}
  rules:
  - apiGroups: [""]
    apiVersions: [v1]
    resources: [pods]
    operations: [CREATE]
    scope: Namespaced
  {{- with .own.admissionRules }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  namespaceSelector:
    {{- with $values.namespaceSelector.matchLabels }}
    matchLabels: {{- toYaml . | nindent 6 }}
    {{- end }}
    matchExpressions:
    - {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .root.Release.Namespace }}]}
    - {key: podshaper.dev/release, operator: DoesNotExist}
    - {key: podshaper.dev/skip, operator: NotIn, values: ["true"]}
    {{- with $values.namespaceSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  objectSelector:
    {{- with $values.objectSelector.matchLabels }}
    matchLabels: {{- toYaml . | nindent 6 }}
    {{- end }}
    matchExpressions:
    - {key: podshaper.dev/skip, operator: NotIn, values: ["true"]}
    {{- with $values.objectSelector.matchExpressions }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  matchConditions:
  # a static pod's image in the API: the kubelet runs it as its file says, whatever becomes of the image
  - name: podshaper.dev/not-a-mirror-pod
    expression: "!('kubernetes.io/config.mirror' in object.metadata.?annotations.orValue({}))"
  {{- with concat (.own.matchConditions | default list) ($values.matchConditions | default list) }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
