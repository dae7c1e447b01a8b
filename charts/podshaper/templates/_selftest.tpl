{{/*
`helm test` creates a pod in a dry run and compares the result with the webhook's decision. The request passes selectors, match
conditions, Service, certificate and CA bundle, as a real pod does. The test has a namespace of its own: the namespace of the release is
excluded, and quotas or policies of another one could refuse the pod. The test may create pods only there. Namespace and pod have the
labels that the selectors of the webhook require.
*/}}
{{- define "podshaper.selftest" -}}
{{- $labels := include "podshaper.labels" (list . "selftest") | fromYaml -}}
{{- $name := print .fullname "-selftest" -}}
{{- $pod := .own.selftest -}}
{{- include "podshaper.overlay" (dict "base" $pod "over" (dict "metadata" (dict "labels" (include "podshaper.satisfy" .values.objectSelector | fromYaml)))) -}}
apiVersion: v1
kind: Namespace
metadata:
  name: {{ $name }}
  labels: {{- merge (include "podshaper.satisfy" .values.namespaceSelector | fromYaml) $labels | toYaml | nindent 4 }}
  annotations: {{- include "podshaper.selftest.hook" -2 | nindent 4 }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- toYaml $labels | nindent 4 }}
  annotations: {{- include "podshaper.selftest.hook" -2 | nindent 4 }}
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ $name }}
  namespace: {{ $name }}
  labels: {{- toYaml $labels | nindent 4 }}
  annotations: {{- include "podshaper.selftest.hook" -1 | nindent 4 }}
rules:
- apiGroups: [""]
  resources: [pods]
  verbs: [create]
{{- with .own.selftestRules }}
{{ toYaml . }}
{{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ $name }}
  labels: {{- toYaml $labels | nindent 4 }}
  annotations: {{- include "podshaper.selftest.hook" -1 | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $name }}, namespace: {{ .root.Release.Namespace }}}
{{- range .own.selftestObjects }}
---
{{ include "podshaper.overlay" (dict "base" . "over" (dict "metadata" (dict "labels" $labels "annotations" (include "podshaper.selftest.hook" -1 | fromYaml)))) }}
{{- toYaml . }}
{{- end }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.podLabels" (list . "selftest") | nindent 4 }}
  annotations:
    {{- include "podshaper.selftest.hook" 0 | nindent 4 }}
    helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
spec:
  serviceAccountName: {{ $name }}
  automountServiceAccountToken: true
  restartPolicy: Never
  {{- include "podshaper.selftest.scheduling" . | trim | nindent 2 }}
  securityContext: {{- toYaml .values.podSecurityContext | nindent 4 }}
  containers:
  - name: selftest
    image: {{ include "podshaper.image" . }}
    imagePullPolicy: {{ .values.image.pullPolicy }}
    args:
    - selftest
    - --namespace={{ $name }}
    - {{ printf "--pod=%s" (toJson $pod) | quote }}
    {{- if .own.selftestOnNode }}
    - --node=$(NODE_NAME)
    {{- end }}
    {{- with .own.selftestOwner }}
    - --owner={{ . }}
    {{- end }}
    {{- with .own.selftestArgs }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "podshaper.config.args" . | trim | nindent 4 }}
    {{- if or .own.env .own.selftestOnNode }}
    env:
    {{- if .own.selftestOnNode }}
    - name: NODE_NAME
      valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
    {{- end }}
    {{- with .own.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- end }}
    {{- with .values.selftest.resources }}
    resources: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- toYaml .values.securityContext | nindent 6 }}
    {{- if .own.config }}
    volumeMounts:
    {{- include "podshaper.config.mount" . | trim | nindent 4 }}
    {{- with .own.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
  {{- include "podshaper.config.volume" . | trim | nindent 2 }}
  {{- with .own.volumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
    {{- end }}
{{- end -}}

{{/* Where the pods of hooks run: as the webhook, unless `selftest` says otherwise */}}
{{- define "podshaper.selftest.scheduling" -}}
{{- $scheduling := pick .values "imagePullSecrets" "nodeSelector" "tolerations" }}
{{- include "podshaper.overlay" (dict "base" $scheduling "over" (pick .values.selftest "nodeSelector" "tolerations" "affinity")) }}
{{- range $field, $value := $scheduling }}
{{- with $value }}
{{ $field }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Not empty if the webhook has a self-test. Without its permissions it could not run. */}}
{{- define "podshaper.hasSelftest" -}}
{{- if and (hasKey .own "selftest") .values.selftest.enabled .values.rbac.create }}true{{ end -}}
{{- end -}}

{{- define "podshaper.selftest.hook" -}}
helm.sh/hook: test
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}

{{/* Labels that a label selector accepts */}}
{{- define "podshaper.satisfy" -}}
{{- $labels := deepCopy (.matchLabels | default dict) -}}
{{- range .matchExpressions -}}
{{- if has .operator (list "In" "Exists") -}}
{{- $_ := set $labels .key (first (.values | default (list ""))) -}}
{{- end -}}
{{- end -}}
{{- toYaml $labels -}}
{{- end -}}
