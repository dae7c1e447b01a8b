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
spec:
  {{- if hasKey $values "replicas" }}
  replicas: {{ $values.replicas }}
  {{- end }}
  selector:
    matchLabels: {{- toYaml $selector | nindent 6 }}
  strategy:
    rollingUpdate:
      # on the host's network a new pod may have to wait for an old one's ports
      maxUnavailable: {{ ternary 1 0 $values.hostNetwork }}
      maxSurge: 1
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
      serviceAccountName: {{ .fullname }}
      automountServiceAccountToken: {{ .callsAPI }}
      enableServiceLinks: false
      # longer than the webhook takes to answer what is under way and to see that no more comes
      terminationGracePeriodSeconds: 40
      {{- if $values.hostNetwork }}
      hostNetwork: true
      dnsPolicy: ClusterFirstWithHostNet
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
        {{- include "podshaper.config.args" . | trim | nindent 8 }}
        {{- with $values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
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
        livenessProbe:
          httpGet: {path: /livez, port: health}
        # every second: the webhook is ready within milliseconds, and out of the Service as fast
        readinessProbe:
          httpGet: {path: /readyz, port: health}
          periodSeconds: 1
        {{- with $values.resources }}
        resources: {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext: {{- toYaml $values.securityContext | nindent 10 }}
        {{- $files := ne $values.tls.mode "selfManaged" }}
        {{- if or $files .own.config .own.volumes }}
        volumeMounts:
        {{- include "podshaper.config.mount" . | trim | nindent 8 }}
        {{- with .own.volumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- if $files }}
        - {name: tls, mountPath: /tmp/k8s-webhook-server/serving-certs, readOnly: true}
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
      {{- end }}
{{- end -}}
