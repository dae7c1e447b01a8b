{{/*
Merges a map of values into another one, in place: maps merge, null removes, any other value replaces. Sprig's merge treats false,
0, "" and [] as absent. Its mergeOverwrite keeps null, which would become a label without a value in a node selector.
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
Completes a webhook, in place. Input: root, name. All other templates take the fields that it adds:
  fullname  name of its objects
  serviceAccount  name of the ServiceAccount of its pods
  configurationName  name of its MutatingWebhookConfiguration
  values    `defaults` and `tls`, overridden by the block of the webhook
  own       the webhook's own settings, from its template NAME.own: path, args, env, serveEnv (not for the self-test), config,
            volumes, volumeMounts, matchConditions, admissionRules (in addition to pods), hooks (additional webhooks of its
            configuration: name, rules, matchConditions, or selectsPods for pods with the conditions of the user; failurePolicy, namespaceSelector and objectSelector, if they differ), egress,
            rules.{namespaced,cluster}, writes (fields of pods that the rules permit to patch: fields of the spec, keys of labels and annotations,
            resize), sideEffects, crds (files of files/crds and the resources that they define; readOnly:
            only the webhook may write them), selftest (a pod that the webhook changes), selftestObjects (objects that the pod needs),
            selftestOnNode (whether the pod needs a node), selftestOwner (path of its controller), selftestArgs (further arguments), selftestRules (permission to read it)
  callsAPI  whether its pods need a token
*/}}
{{- define "podshaper.resolve" -}}
{{- $values := dict }}
{{- range list .root.Values.defaults (dict "tls" .root.Values.tls) (get .root.Values .name) }}
  {{- include "podshaper.overlay" (dict "base" $values "over" .) }}
{{- end }}
{{- $_ := set . "values" $values }}

{{- $_ := set . "fullname" (include "podshaper.fullname" (dict "root" .root "name" .name "block" $values)) }}
{{- $_ := set . "serviceAccount" ($values.serviceAccount.name | default .fullname) }}
{{- $_ := set . "configurationName" ($values.webhookConfigurationName | default .fullname) }}
{{- with dig "imagePullSecrets" list (.root.Values.global | default dict) }}
  {{- $_ := set $values "imagePullSecrets" (concat ($values.imagePullSecrets | default list) .) }}
{{- end }}
{{- include "podshaper.validate" . }}

{{- $own := include (printf "%s.own" .name) . | fromYaml }}
{{- with $own.Error }}
  {{- fail (printf "%s.own isn't YAML: %s" $.name .) }}
{{- end }}
{{- $_ := set . "own" $own }}
{{- $_ := set . "callsAPI" (or (eq $values.tls.mode "selfManaged") $values.metrics.auth (not (empty $own.rules))) }}
{{- end -}}
