{{/*
Before an installation or an upgrade, a pod checks the settings with the new image: flags, variables, the configuration file, and, in a dry
run of the API server, the webhook configuration with its CEL conditions. Secrets and ConfigMaps of the user are optional here, because a
GitOps tool may create them later.
*/}}
{{- define "podshaper.check" -}}
{{- if .values.check.enabled -}}
{{- $name := print .fullname "-check" -}}
{{- $labels := include "podshaper.labels" (list . "check") -}}
{{- $hook := include "podshaper.check.hook" -2 -}}
{{- $account := ternary $name .serviceAccount .values.serviceAccount.create -}}
{{- if .values.serviceAccount.create -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- $hook | nindent 4 }}
automountServiceAccountToken: false
---
{{ end -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- $hook | nindent 4 }}
data:
  webhook-configuration.json: {{ include "podshaper.configuration" . | fromYaml | toJson | quote }}
  {{- with .own.config }}
  config.yaml: |
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- if .values.rbac.create }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- $hook | nindent 4 }}
rules:
# the authorizer knows no permission for dry runs alone
- apiGroups: [admissionregistration.k8s.io]
  resources: [mutatingwebhookconfigurations]
  resourceNames: [{{ .configurationName }}]
  verbs: [create, patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
  annotations: {{- $hook | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $account }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
{{- with include "podshaper.check.networkPolicy" (list . $name $labels $hook) | trim }}
---
{{ . }}
{{- end }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.podLabels" (list . "check") | nindent 4 }}
  annotations:
    {{- include "podshaper.check.hook" -1 | nindent 4 }}
    helm.sh/hook-output-log-policy: hook-failed
spec:
  serviceAccountName: {{ $account }}
  automountServiceAccountToken: true
  restartPolicy: Never
  {{- include "podshaper.selftest.scheduling" . | trim | nindent 2 }}
  securityContext: {{- toYaml .values.podSecurityContext | nindent 4 }}
  containers:
  - name: check
    image: {{ include "podshaper.image" . }}
    imagePullPolicy: {{ .values.image.pullPolicy }}
    args:
    {{- include "podshaper.args" . | trim | nindent 4 }}
    - --check
    - --check-configuration=/etc/podshaper/webhook-configuration.json
    env:
    - name: POD_NAMESPACE
      valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
    {{- range concat (.own.env | default list) (.own.serveEnv | default list) (.values.extraEnv | default list) }}
    {{- if not .valueFrom }}
    - {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- end }}
    {{- with .values.selftest.resources }}
    resources: {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext: {{- toYaml .values.securityContext | nindent 6 }}
    volumeMounts:
    - {name: check, mountPath: /etc/podshaper, readOnly: true}
    {{- with .own.volumeMounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
  - name: check
    configMap: {name: {{ $name }}}
  {{- range .own.volumes }}
  {{- include "podshaper.overlay" (dict "base" . "over" (dict "secret" (dict "optional" true))) }}
  - {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* The pod runs before the other policies exist. */}}
{{- define "podshaper.check.networkPolicy" -}}
{{- $webhook := index . 0 -}}
{{- if $webhook.values.networkPolicy.enabled -}}
{{- $ports := list }}
{{- range $webhook.values.networkPolicy.apiServerPorts }}
{{- $ports = append $ports (dict "port" .) }}
{{- end }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ index . 1 }}
  namespace: {{ $webhook.root.Release.Namespace }}
  labels: {{- index . 2 | nindent 4 }}
  annotations: {{- index . 3 | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "podshaper.selectorLabels" (list $webhook "check") | nindent 6 }}
  policyTypes: [Ingress, Egress]
  egress: {{- concat (list (dict "ports" $ports)) ($webhook.values.networkPolicy.egress | default list) | toYaml | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "podshaper.check.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ . | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
{{- end -}}
