{{/*
The pod template depends on the values of this webhook only, so that a change of another webhook does not restart its pods.
*/}}
{{- define "podshaper.deployment" -}}
{{- $values := .values -}}
{{- $selector := include "podshaper.selectorLabels" (list . "webhook") | fromYaml -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .fullname }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
  {{- with $values.deploymentAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- if hasKey $values "replicas" }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml $selector | nindent 6 }}
  {{- if not (kindIs "invalid" $values.revisionHistoryLimit) }}
  revisionHistoryLimit: {{ $values.revisionHistoryLimit }}
  {{- end }}
  strategy:
    {{- if $values.strategy }}
    {{- toYaml $values.strategy | nindent 4 }}
    {{- else }}
    rollingUpdate:
      # on the host network, a new pod may wait for the ports of an old one
      maxUnavailable: {{ ternary 1 0 $values.hostNetwork }}
      maxSurge: 1
    {{- end }}
  template:
    metadata:
      {{- $annotations := dict }}
      {{- with .own.config }}
      {{- $_ := set $annotations "podshaper.dev/config" (toYaml . | sha256sum) }}
      {{- end }}
      {{- with merge $annotations ($values.podAnnotations | default dict) }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
      labels: {{- include "podshaper.podLabels" (list . "webhook") | nindent 8 }}
    spec:
      serviceAccountName: {{ .serviceAccount }}
      automountServiceAccountToken: {{ .callsAPI }}
      enableServiceLinks: false
      # the drain, its extension of at most 10 s, 10 s for the last requests, and a margin
      terminationGracePeriodSeconds: {{ include "podshaper.seconds" $values.drainTime | float64 | ceil | int | add 25 }}
      {{- if $values.hostNetwork }}
      hostNetwork: true
      {{- end }}
      {{- with $values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" $values.hostNetwork) }}
      dnsPolicy: {{ . }}
      {{- end }}
      {{- with $values.dnsConfig }}
      dnsConfig: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with pick $values "imagePullSecrets" "priorityClassName" "nodeSelector" "tolerations" "affinity" }}
      {{- range $field, $value := . }}
      {{- with $value }}
      {{ $field }}: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- end }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
      {{- $spread := dict "labelSelector" (dict "matchLabels" $selector) "matchLabelKeys" (list "pod-template-hash") }}
      {{- range . }}
      - {{- merge (deepCopy .) (ternary dict $spread (hasKey . "labelSelector")) | toYaml | nindent 8 }}
      {{- end }}
      {{- end }}
      securityContext: {{- toYaml $values.podSecurityContext | nindent 8 }}
      containers:
      - name: {{ .name }}
        image: {{ include "podshaper.image" . }}
        imagePullPolicy: {{ $values.image.pullPolicy }}
        args:
        {{- include "podshaper.args" . | trim | nindent 8 }}
        env:
        - name: POD_NAMESPACE
          valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
        {{- with concat (.own.env | default list) (.own.serveEnv | default list) ($values.extraEnv | default list) }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        ports:
        {{- range $name, $port := $values.ports }}
        - {name: {{ $name }}, containerPort: {{ $port }}}
        {{- end }}
        {{- /* a ready webhook enters the Service within a second, and leaves it as fast */}}
        {{- $liveness := dict "httpGet" (dict "path" "/livez" "port" "health") }}
        {{- $readiness := dict "httpGet" (dict "path" "/readyz" "port" "health") "periodSeconds" 1 }}
        {{- include "podshaper.overlay" (dict "base" $liveness "over" $values.livenessProbe) }}
        {{- include "podshaper.overlay" (dict "base" $readiness "over" $values.readinessProbe) }}
        livenessProbe: {{- toYaml $liveness | nindent 10 }}
        readinessProbe: {{- toYaml $readiness | nindent 10 }}
        {{- with $values.resources }}
        resources: {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext: {{- toYaml $values.securityContext | nindent 10 }}
        {{- $files := ne $values.tls.mode "selfManaged" }}
        {{- $clientCA := dig "clientCA" "configMapName" "" $values }}
        {{- if or $files $clientCA .own.config .own.volumes $values.extraVolumes $values.extraVolumeMounts }}
        volumeMounts:
        {{- include "podshaper.config.mount" . | trim | nindent 8 }}
        {{- with .own.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if $files }}
        - {name: tls, mountPath: /tmp/k8s-webhook-server/serving-certs, readOnly: true}
        {{- end }}
        {{- if $clientCA }}
        - {name: client-ca, mountPath: /etc/podshaper/client-ca, readOnly: true}
        {{- end }}
        {{- with $values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      volumes:
      {{- include "podshaper.config.volume" . | trim | nindent 6 }}
      {{- with .own.volumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- if $files }}
      - name: tls
        secret: {secretName: {{ include "podshaper.tlsSecret" . }}}
      {{- end }}
      {{- if $clientCA }}
      - name: client-ca
        configMap:
          name: {{ $clientCA }}
          items: [{key: {{ $values.clientCA.key | default "ca.crt" }}, path: ca.crt}]
      {{- end }}
      {{- with $values.extraVolumes }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- end }}
{{- end -}}

{{/* The arguments of `serve`, which the check of an upgrade has too */}}
{{- define "podshaper.args" -}}
{{- $values := .values -}}
- serve
- --webhook-bind-address=:{{ $values.ports.webhook }}
- --health-probe-bind-address=:{{ $values.ports.health }}
- --metrics-bind-address=:{{ $values.ports.metrics }}
- --metrics-auth={{ ternary "always" "never" $values.metrics.auth }}
- --log-level={{ $values.log.level }}
- --log-format={{ $values.log.format }}
{{- if eq $values.tls.mode "selfManaged" }}
- --self-managed-secret={{ include "podshaper.tlsSecret" . }}
- --webhook-configuration={{ .configurationName }}
- --service-name={{ .fullname }}
- --leaf-lifetime={{ $values.tls.selfManaged.leafLifetime }}
- --ca-lifetime={{ $values.tls.selfManaged.caLifetime }}
{{- else }}
- --cert-dir=/tmp/k8s-webhook-server/serving-certs
- --cert-hold={{ $values.tls.certHold }}
{{- end }}
- --drain-time={{ $values.drainTime }}
{{- if dig "clientCA" "configMapName" "" $values }}
- --client-ca=/etc/podshaper/client-ca/ca.crt
{{- end }}
{{- include "podshaper.config.args" . | trim | nindent 0 }}
{{- with $values.extraArgs }}
{{- toYaml . | nindent 0 }}
{{- end }}
{{- end -}}
