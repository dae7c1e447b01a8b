{{/*
Lay a map of values over another one, in place: maps merge, null removes, anything else replaces. Sprig's merge takes false,
0, "" and [] for absent, and its mergeOverwrite keeps null, which in a node selector would become a label without a value.
Input: base, over
*/}}
{{- define "podshaper.overlay" -}}
{{- range $key, $value := .over }}
  {{- if kindIs "invalid" $value }}
    {{- $_ := unset $.base $key }}
  {{- else if kindIs "map" $value }}
    {{- if not (kindIs "map" (get $.base $key)) }}
      {{- $_ := set $.base $key dict }}
    {{- end }}
    {{- include "podshaper.overlay" (dict "base" (get $.base $key) "over" $value) }}
  {{- else }}
    {{- $_ := set $.base $key $value }}
  {{- end }}
{{- end }}
{{- end -}}

{{/*
Complete a webhook, in place. Input: root, name. Added, and what all other templates take:
  fullname  name of its objects
  values    `defaults` and `tls` with the webhook's block laid over them
  own       what only this webhook has, from its template NAME.own: path, args, env, serveEnv (the self-test's not), config,
            volumes, volumeMounts, matchConditions, admissionRules (besides that of pods), hooks (more webhooks of its
            configuration: name, rules, matchConditions), egress,
            rules.{namespaced,cluster}, sideEffects, crds (files of files/crds and the resources that they define; readOnly:
            for nobody but the webhook to write), selftest (a pod that it changes), selftestObjects (what that pod needs),
            selftestOnNode (whether it needs a node), selftestOwner (the path of its controller), selftestRules (to read that)
  callsAPI  whether its pods need a token
*/}}
{{- define "podshaper.resolve" -}}
{{- $values := dict }}
{{- range list .root.Values.defaults (dict "tls" .root.Values.tls) (get .root.Values .name) }}
  {{- include "podshaper.overlay" (dict "base" $values "over" .) }}
{{- end }}
{{- $_ := set . "values" $values }}

{{- $_ := set . "fullname" (printf "%s-%s" .root.Release.Name .name) }}
{{- /* a Service and a Namespace are DNS labels; the longest is the self-test's */}}
{{- $room := sub 63 (printf "-%s-selftest" .name | len) | int }}
{{- if gt (len .root.Release.Name) $room }}
  {{- fail (printf "release name %q is too long for the webhook %s: at most %d characters" .root.Release.Name .name $room) }}
{{- end }}

{{- with $values.ports }}
  {{- if lt (values . | uniq | len) (len .) }}
    {{- fail (printf "ports of %s: webhook, health and metrics each need a port of their own" $.name) }}
  {{- end }}
{{- end }}

{{- with $values.tls }}
  {{- if and (eq .mode "existingSecret") (not (and .existingSecret.name .existingSecret.caBundle)) }}
    {{- fail (printf "tls.mode existingSecret needs tls.existingSecret.name and .caBundle, here or under %s" $.name) }}
  {{- end }}
{{- end }}

{{- $own := include (printf "%s.own" .name) . | fromYaml }}
{{- with $own.Error }}
  {{- fail (printf "%s.own isn't YAML: %s" $.name .) }}
{{- end }}
{{- $_ := set . "own" $own }}
{{- $_ := set . "callsAPI" (or (eq $values.tls.mode "selfManaged") $values.metrics.auth (not (empty $own.rules))) }}
{{- end -}}
