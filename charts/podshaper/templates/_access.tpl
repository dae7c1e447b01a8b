{{/* The ServiceAccount of a webhook's pods and its permissions */}}
{{- define "podshaper.access" -}}
{{- $labels := include "podshaper.labels" (list . "webhook") -}}
{{- $namespaced := dig "rules" "namespaced" list .own -}}
{{- $cluster := dig "rules" "cluster" list .own -}}
{{- if eq .values.tls.mode "selfManaged" -}}
{{- $namespaced = concat $namespaced (include "podshaper.access.secret" . | fromYamlArray) -}}
{{- $cluster = concat $cluster (include "podshaper.access.configuration" . | fromYamlArray) -}}
{{- end -}}
{{- if .values.metrics.auth -}}
{{- $cluster = concat $cluster (include "podshaper.access.reviews" . | fromYamlArray) -}}
{{- end -}}
{{- if .values.serviceAccount.create }}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .serviceAccount }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- if .values.rbac.create }}
{{- with $namespaced }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
rules: {{- toYaml . | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $.fullname }}}
subjects:
- {kind: ServiceAccount, name: {{ $.serviceAccount }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- with $cluster }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $.fullname }}
  labels: {{- $labels | nindent 4 }}
rules: {{- toYaml . | nindent 0 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $.fullname }}
  labels: {{- $labels | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $.fullname }}}
subjects:
- {kind: ServiceAccount, name: {{ $.serviceAccount }}, namespace: {{ $.root.Release.Namespace }}}
{{- end }}
{{- if .values.metrics.auth }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ .fullname }}-metrics-reader
  labels: {{- $labels | nindent 4 }}
rules:
- nonResourceURLs: [/metrics]
  verbs: [get]
{{- end }}
{{- end }}
{{- end -}}

{{/*
`create` is for a deleted Secret. With resourceNames it permits server-side apply of that one Secret but no POST, because the authorizer
sees no name in a POST.
*/}}
{{- define "podshaper.access.secret" -}}
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "podshaper.tlsSecret" . }}]
  verbs: [get, watch, patch, create]
{{- end -}}

{{/*
A webhook that may write its caBundle may also write the rest of its configuration, for example its rules. Someone who controls its pod
could receive any object of the cluster. RBAC cannot limit a permission to one field, and admission policies do not apply to webhook
configurations. Other values of tls.mode avoid this permission.
*/}}
{{- define "podshaper.access.configuration" -}}
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  resourceNames: [{{ .configurationName }}]
  verbs: [get, watch, patch]
{{- end -}}

{{- define "podshaper.access.reviews" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
{{- end -}}
