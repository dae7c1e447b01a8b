{{/*
Refuses values that the schema cannot judge, because they contradict each other or the release. Input: a webhook with its values
*/}}
{{- define "podshaper.validate" -}}
{{- $name := .name -}}
{{- $values := .values -}}
{{- $release := .root.Release -}}
{{- if eq $release.Namespace "kube-system" }}
  {{- fail "the release is in kube-system, which the webhooks never see: install it into a namespace of its own" }}
{{- end }}
{{- $fullname := include "podshaper.fullname" (dict "root" .root "name" $name "block" $values) }}
{{- if contains "." $fullname }}
  {{- fail (printf "release name %q has a dot, which the name of a Service cannot have" $release.Name) }}
{{- end }}
{{- if not (regexMatch "^[a-z]" $fullname) }}
  {{- fail (printf "release name %q begins with a digit, which the name of a Service cannot: set %s.fullnameOverride" $release.Name $name) }}
{{- end }}
{{- /* A Service and a Namespace are DNS labels; the longest name is that of the self-test. */}}
{{- if gt (len $fullname) (sub 63 (len "-selftest") | int) }}
  {{- $room := sub 63 (printf "-%s-selftest" $name | len) | int }}
  {{- fail (printf "release name %q is too long for the webhook %s: at most %d characters, or set %s.fullnameOverride" $release.Name $name $room $name) }}
{{- end }}
{{- include "podshaper.validate.names" . }}
{{- with $values.ports }}
  {{- if lt (values . | uniq | len) (len .) }}
    {{- fail (printf "ports of %s: webhook, health and metrics each need a port of their own" $name) }}
  {{- end }}
{{- end }}
{{- include "podshaper.validate.configurationName" . }}
{{- include "podshaper.validate.failurePolicy" . }}
{{- include "podshaper.validate.hostNetwork" . }}
{{- if hasKey $values "replicas" }}
  {{- $replicas := int $values.replicas }}
  {{- if and (eq $replicas 0) (eq $values.failurePolicy "Fail") }}
    {{- fail (printf "%s.replicas is 0 with failurePolicy Fail: no pod that the webhook selects could be created" $name) }}
  {{- end }}
  {{- with $values.podDisruptionBudget }}
    {{- if and .enabled (not (kindIs "invalid" .minAvailable)) (gt $replicas 0) }}
      {{- $least := .minAvailable }}
      {{- if or (eq (toString $least) "100%") (and (not (kindIs "string" $least)) (ge (int $least) $replicas)) }}
        {{- fail (printf "%s.podDisruptionBudget.minAvailable is %v with %d replicas: no node with a replica could be drained" $name $least $replicas) }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with $values.podDisruptionBudget }}
  {{- if and .enabled (kindIs "invalid" .minAvailable) (has (toString .maxUnavailable) (list "0" "0%")) }}
    {{- fail (printf "%s.podDisruptionBudget.maxUnavailable is %v: no node with a replica could be drained" $name .maxUnavailable) }}
  {{- end }}
{{- end }}
{{- with dig "rollingUpdate" dict ($values.strategy | default dict) }}
  {{- if and (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) }}
    {{- fail (printf "%s.strategy.rollingUpdate: maxSurge and maxUnavailable are both 0, so no pod could be replaced" $name) }}
  {{- end }}
{{- end }}
{{- if and (eq $values.dnsPolicy "None") (not (dig "nameservers" list ($values.dnsConfig | default dict))) }}
  {{- fail (printf "%s.dnsPolicy is None: dnsConfig.nameservers must name a server" $name) }}
{{- end }}
{{- with $values.pullSecrets }}
  {{- $verified := or (dig "clientCA" "configMapName" "" $values) (and $values.networkPolicy.enabled $values.networkPolicy.webhookFrom) }}
  {{- if and .enabled (not $verified) (not .acceptUnauthenticated) }}
    {{- fail (printf "%s.pullSecrets.enabled: every client on the pod network could have the webhook use the Secrets of any namespace. Set clientCA.configMapName, or networkPolicy.enabled and networkPolicy.webhookFrom, or pullSecrets.acceptUnauthenticated" $name) }}
  {{- end }}
{{- end }}
{{- include "podshaper.validate.resources" (dict "path" (print $name ".resources") "resources" $values.resources) }}
{{- include "podshaper.validate.resources" (dict "path" (print $name ".selftest.resources") "resources" $values.selftest.resources) }}
{{- with $values.nodeCapacity }}
  {{- include "podshaper.validate.resources" (dict "path" (print $name ".nodeCapacity.resources") "resources" .resources) }}
{{- end }}
{{- with $values.tls }}
  {{- if and (eq .mode "existingSecret") (not (and .existingSecret.name .existingSecret.caBundle)) }}
    {{- fail (printf "tls.mode existingSecret needs tls.existingSecret.name and .caBundle, here or under %s" $name) }}
  {{- end }}
  {{- if and (eq .mode "certManager") (lt (include "podshaper.seconds" .certManager.duration | float64) 3600.0) }}
    {{- fail (printf "tls.certManager.duration is %s: cert-manager issues certificates for 1h or more" .certManager.duration) }}
  {{- end }}
  {{- if eq .mode "selfManaged" }}
    {{- $leaf := include "podshaper.seconds" .selfManaged.leafLifetime | float64 }}
    {{- $ca := include "podshaper.seconds" .selfManaged.caLifetime | float64 }}
    {{- if lt $leaf 10.0 }}
      {{- fail (printf "tls.selfManaged.leafLifetime is %s: at least 10s" .selfManaged.leafLifetime) }}
    {{- end }}
    {{- if gt $leaf $ca }}
      {{- fail (printf "tls.selfManaged.leafLifetime is %s, longer than caLifetime %s" .selfManaged.leafLifetime .selfManaged.caLifetime) }}
    {{- end }}
    {{- if lt $ca 360.0 }}
      {{- fail (printf "tls.selfManaged.caLifetime is %s: at least 6m, six times the time before a new CA is used" .selfManaged.caLifetime) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- $isPlacement := has $name (list "distributor" "custom-scheduler-annotations") }}
{{- if and (dig "metrics" "perObject" false (index .root.Values $name)) (not $isPlacement) }}
  {{- fail (printf "%s.metrics.perObject: only distributor and custom-scheduler-annotations have metrics of tenants' objects" $name) }}
{{- end }}
{{- if and $values.metrics.perObject $isPlacement (not $values.metrics.auth) }}
  {{- fail (printf "%s.metrics.perObject shows the names of tenants' objects to everyone who reads the metrics: it needs metrics.auth" $name) }}
{{- end }}
{{- with $values.metrics }}
  {{- if and .auth .monitor.enabled (not (dig "tokenSecret" "name" "" .monitor)) (not (dig "endpoint" "authorization" "" .monitor)) }}
    {{- fail (printf "%s.metrics.auth with a monitor: metrics.monitor.tokenSecret.name must name a Secret with a token that may get /metrics" $name) }}
  {{- end }}
{{- end }}
{{- with $values.lookupTimeout }}
  {{- if ge (include "podshaper.seconds" . | float64) (float64 $values.timeoutSeconds) }}
    {{- fail (printf "%s.lookupTimeout is %s: it must be less than timeoutSeconds, %v" $name . $values.timeoutSeconds) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Two webhooks of a release cannot share a name. */}}
{{- define "podshaper.validate.names" -}}
{{- $own := include "podshaper.fullname" (dict "root" .root "name" .name "block" .values) }}
{{- range $other, $block := omit (include "podshaper.blocks" .root | fromYaml) .name }}
  {{- if and $block.enabled (eq $own (include "podshaper.fullname" (dict "root" $.root "name" $other "block" $block))) }}
    {{- fail (printf "%s.fullnameOverride: %q is the name of %s too" $.name $own $other) }}
  {{- end }}
{{- end }}
{{- if and (not .values.serviceAccount.create) (not .values.serviceAccount.name) }}
  {{- fail (printf "%s.serviceAccount.create is false: serviceAccount.name must name a ServiceAccount" .name) }}
{{- end }}
{{- end -}}

{{/* Two webhooks of a release cannot share a configuration. */}}
{{- define "podshaper.validate.configurationName" -}}
{{- with .values.webhookConfigurationName }}
  {{- range $other, $block := omit (include "podshaper.blocks" $.root | fromYaml) $.name }}
    {{- if and $block.enabled (eq $.values.webhookConfigurationName ($block.webhookConfigurationName | default (include "podshaper.fullname" (dict "root" $.root "name" $other "block" $block)))) }}
      {{- fail (printf "%s.webhookConfigurationName is %q, the name of the configuration of %s" $.name $.values.webhookConfigurationName $other) }}
    {{- end }}
  {{- end }}
{{- end }}
{{- with .values.anyRuntimeClass }}
  {{- if and .enabled (not .namespaceSelector.matchLabels) (not .namespaceSelector.matchExpressions) }}
    {{- fail "peerpods.anyRuntimeClass.namespaceSelector is empty: it would send every pod of the cluster to the webhook" }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Ports on the host network are unique on a node, and the kubelet has port 10250. */}}
{{- define "podshaper.validate.hostNetwork" -}}
{{- if .values.hostNetwork }}
  {{- $name := .name }}
  {{- $own := values .values.ports }}
  {{- if has 10250.0 (list (float64 .values.ports.webhook) (float64 .values.ports.health) (float64 .values.ports.metrics)) }}
    {{- fail (printf "%s.ports has 10250, the port of the kubelet on the host network" $name) }}
  {{- end }}
  {{- range $other, $block := include "podshaper.blocks" .root | fromYaml }}
    {{- if and $block.enabled (ne $other $name) }}
      {{- $theirs := dict }}
      {{- include "podshaper.overlay" (dict "base" $theirs "over" (pick $.root.Values.defaults "hostNetwork" "ports")) }}
      {{- include "podshaper.overlay" (dict "base" $theirs "over" (pick $block "hostNetwork" "ports")) }}
      {{- if $theirs.hostNetwork }}
        {{- range values $theirs.ports }}
          {{- if has (float64 .) (list (float64 $.values.ports.webhook) (float64 $.values.ports.health) (float64 $.values.ports.metrics)) }}
            {{- fail (printf "%s and %s are on the host network with the same port %v: set ports of each" $name $other .) }}
          {{- end }}
        {{- end }}
      {{- end }}
    {{- end }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A request may not exceed its limit. Input: path, resources */}}
{{- define "podshaper.validate.resources" -}}
{{- $limits := dig "limits" dict (.resources | default dict) | default dict }}
{{- range $resource, $request := dig "requests" dict (.resources | default dict) | default dict }}
  {{- $limit := get $limits $resource }}
  {{- if and (hasKey $limits $resource) (gt (include "podshaper.quantity" $request | float64) (include "podshaper.quantity" $limit | float64)) }}
    {{- fail (printf "%s: the request of %s, %v, exceeds the limit %v" $.path $resource $request $limit) }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* A Kubernetes quantity as a number. */}}
{{- define "podshaper.quantity" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[+]?[0-9.]+([eE][+-]?[0-9]+)?" $text -}}
{{- $factors := dict "" 1 "m" 0.001 "u" 0.000001 "n" 0.000000001 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "E" 1e18 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- mulf (float64 $number) (get $factors (trimPrefix $number $text) | default 1 | float64) -}}
{{- end -}}

{{/* A duration such as 90d, 1h30m or 1500ms, in seconds. */}}
{{- define "podshaper.seconds" -}}
{{- $seconds := 0.0 -}}
{{- $units := dict "w" 604800.0 "d" 86400.0 "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 -}}
{{- range regexFindAll "[0-9]+(ms|[wdhms])" . -1 -}}
{{- $number := regexFind "^[0-9]+" . -}}
{{- $seconds = addf $seconds (mulf (float64 $number) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* With Fail, the placement webhooks would hold the pods of every workload, those of the network and of DNS included. */}}
{{- define "podshaper.validate.failurePolicy" -}}
{{- $values := .values }}
{{- $selects := false }}
{{- range list "namespaceSelector" "objectSelector" }}
  {{- $selector := get $values . | default dict }}
  {{- if or $selector.matchLabels $selector.matchExpressions }}
    {{- $selects = true }}
  {{- end }}
{{- end }}
{{- if and (has .name (list "distributor" "custom-scheduler-annotations")) (eq $values.failurePolicy "Fail") (not $selects) }}
  {{- fail (printf "%s.failurePolicy is Fail without a namespaceSelector or objectSelector: while the webhook is down, no pod of any workload could be created" .name) }}
{{- end }}
{{- end -}}
