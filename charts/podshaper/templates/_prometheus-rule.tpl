{{/*
Alerts of one webhook, for the Prometheus operator. Each has a section in docs/runbooks.md. `apiserver_*` are metrics of the API server;
its histogram has bounds of 1 s and 2.5 s, near half of each default timeout.
*/}}
{{- define "podshaper.prometheusRule" -}}
{{- with .values.metrics.rules -}}
{{- if .enabled -}}
{{- $alerts := concat (include "podshaper.alerts" $ | fromYamlArray) (include "podshaper.alerts.own" $ | fromYamlArray) }}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: {{ $.fullname }}
  namespace: {{ $.root.Release.Namespace }}
  labels: {{- merge (include "podshaper.labels" (list $ "webhook") | fromYaml) (.labels | default dict) | toYaml | nindent 4 }}
spec:
  groups:
  - name: {{ $.fullname }}
    rules:
    {{- range $alerts }}
    - alert: {{ .alert }}
      expr: {{ toRawJson .expr }}
      {{- with .for }}
      for: {{ . }}
      {{- end }}
      labels: {{- merge (dict "severity" .severity "webhook" $.name) ($.values.metrics.rules.alertLabels | default dict) | toYaml | nindent 8 }}
      annotations:
        summary: {{ toRawJson .summary }}
        runbook_url: {{ $.values.metrics.rules.runbookURL }}#{{ .alert | lower }}
    {{- end }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The alerts that every webhook has */}}
{{- define "podshaper.alerts" -}}
{{- $name := .name -}}
{{- $hooks := printf `name=~"([a-z-]+\\.)?%s\\.podshaper\\.dev"` $name -}}
{{- $own := printf `webhook="%s"` $name -}}
- alert: PodshaperFailsOpen
  severity: warning
  expr: {{ include "podshaper.alerts.increased" (list (printf "apiserver_admission_webhook_fail_open_count{%s}" $hooks) "10m") }}
  summary: The API server could not call {{ $name }} and admitted pods unchanged
- alert: PodshaperUnreachable
  severity: critical
  {{- $errors := `error_type=~"calling_webhook_error|apiserver_internal_error"` }}
  expr: {{ include "podshaper.alerts.increased" (list (printf "apiserver_admission_webhook_rejection_count{%s,%s}" $hooks $errors) "10m") }}
  summary: The API server could not call {{ $name }} and refused pods
- alert: PodshaperSlow
  severity: warning
  for: 10m
  expr: >-
    histogram_quantile(0.99, sum by (le) (rate(apiserver_admission_webhook_admission_duration_seconds_bucket{ {{- $hooks -}} }[10m])))
    > {{ divf .values.timeoutSeconds 2 }}
  summary: The slowest percent of calls of {{ $name }} takes more than half of the timeout of {{ .values.timeoutSeconds }} s
- alert: PodshaperDown
  severity: critical
  for: 5m
  expr: absent(podshaper_connections{ {{- $own -}} })
  summary: Prometheus sees no replica of {{ $name }}
- alert: PodshaperUndecided
  severity: warning
  expr: sum(increase(podshaper_admission_reviews_total{ {{- $own -}} ,outcome="undecided"}[30m])) > 0
  summary: "{{ $name }} admitted pods unchanged because it could not decide"
- alert: PodshaperRefusesPods
  severity: info
  expr: sum(increase(podshaper_admission_reviews_total{ {{- $own -}} ,outcome="denied"}[30m])) > 0
  summary: "{{ $name }} refused pods"
- alert: PodshaperRejectsRequests
  severity: warning
  expr: sum by (reason) (increase(podshaper_admission_refusals_total{ {{- $own -}} ,reason=~"busy|timeout|panic|review|too_large"}[10m])) > 0
  summary: "{{ $name }} rejected requests of the API server: {{ `{{ $labels.reason }}` }}"
- alert: PodshaperCertificateExpires
  severity: critical
  expr: min(podshaper_tls_certificate_expiry_timestamp_seconds{ {{- $own -}} }) - time() < {{ include "podshaper.alerts.remaining" . }}
  summary: The certificate of {{ $name }} expires in {{ `{{ $value | humanizeDuration }}` }} and was not renewed
- alert: PodshaperCAExpires
  severity: critical
  expr: min(podshaper_tls_ca_expiry_timestamp_seconds{ {{- $own -}} } > 0) - time() < {{ include "podshaper.alerts.remaining" . }}
  summary: The CA of {{ $name }} expires in {{ `{{ $value | humanizeDuration }}` }} and was not renewed
- alert: PodshaperCertificateErrors
  severity: warning
  for: 15m
  expr: sum(increase(podshaper_tls_certificate_errors_total{ {{- $own -}} }[15m])) > 0
  summary: "{{ $name }} cannot read or write its certificate, its Secret or its caBundle"
{{- end -}}

{{/*
Whether a counter has increased. A series that is new counts with its value, because `increase` sees no first increment.
Input: (list COUNTER RANGE)
*/}}
{{- define "podshaper.alerts.increased" -}}
{{- $counter := first . -}}
sum(increase({{ $counter }}[{{ last . }}])) > 0 or sum({{ $counter }} unless {{ $counter }} offset {{ last . }}) > 0
{{- end -}}

{{/*
Seconds of validity that are left when renewal is overdue. It happens after two thirds of the lifetime, so a tenth is late. A week is
enough for a longer one.
*/}}
{{- define "podshaper.alerts.remaining" -}}
{{- $week := 604800.0 -}}
{{- if eq .values.tls.mode "selfManaged" -}}
{{- min $week (divf (include "podshaper.seconds" .values.tls.selfManaged.leafLifetime | float64) 10.0) | int -}}
{{- else if eq .values.tls.mode "certManager" -}}
{{- min $week (divf (include "podshaper.seconds" .values.tls.certManager.duration | float64) 10.0) | int -}}
{{- else -}}
{{- int $week -}}
{{- end -}}
{{- end -}}

{{/* The alerts of one webhook alone */}}
{{- define "podshaper.alerts.own" -}}
{{- /* without perObject, `namespace` would be the label of the scraped pod */}}
{{- $objects := .values.metrics.perObject -}}
{{- $prefix := print "podshaper_" (replace "-" "_" .name) -}}
{{- if has .name (list "distributor" "custom-scheduler-annotations") }}
{{ include "podshaper.alerts.noLeader" . }}
- alert: PodshaperUnplacedPods
  severity: warning
  for: 15m
  expr: sum{{ $objects | ternary " by (namespace) " "" }}({{ $prefix }}_unplaced_pods) > 0
  summary: "{{ .name }}: {{ `{{ $value }}` }} pods{{ $objects | ternary ` in {{ $labels.namespace }}` "" }} are in no group"
- alert: PodshaperEstimatedPlacements
  severity: warning
  for: 10m
  expr: {{ include "podshaper.alerts.increased" (list (print $prefix `_decisions_total{outcome="estimated"}`) "10m") }}
  summary: "{{ .name }} placed pods without the ledger"
- alert: PodshaperGroupPending
  severity: warning
  for: 30m
  expr: sum{{ $objects | ternary " by (namespace, group) " "" }}({{ $prefix }}_pods{state="pending"}) > 0
  summary: "{{ .name }}: {{ `{{ $value }}` }} pods{{ $objects | ternary ` of the group {{ $labels.group }} in {{ $labels.namespace }}` "" }} are not ready"
{{- else if eq .name "flexdaemonset" }}
{{ include "podshaper.alerts.noLeader" . }}
- alert: PodshaperRefitWaits
  severity: warning
  for: 1h
  expr: sum by (template) (podshaper_flexdaemonset_pods{state=~"outdated|infeasible|pending"}) > 0
  summary: "{{ `{{ $value }}` }} pods of the template {{ `{{ $labels.template }}` }} do not have its size"
- alert: PodshaperNodesShort
  severity: info
  for: 15m
  expr: podshaper_flexdaemonset_nodes_short > 0
  summary: "{{ `{{ $value }}` }} nodes have less than a pod of the template {{ `{{ $labels.template }}` }} requests"
{{- else if eq .name "arch" }}
- alert: PodshaperRegistryFails
  severity: warning
  for: 15m
  expr: sum by (registry, outcome) (increase(podshaper_arch_lookup_seconds_count{outcome!="known"}[15m])) > 0
  summary: "arch gets no answer from the registry {{ `{{ $labels.registry }}` }}: {{ `{{ $labels.outcome }}` }}"
{{- end }}
{{- end -}}

{{- define "podshaper.alerts.noLeader" -}}
- alert: PodshaperNoLeader
  severity: warning
  for: 5m
  expr: sum(podshaper_{{ replace "-" "_" .name }}_leads) < 1
  summary: No replica of {{ .name }} leads, so nothing is reconciled
{{- end -}}
