{{/*
A ValidatingAdmissionPolicy for the writes of one ServiceAccount to pods. RBAC cannot limit a permission to fields of an object: a
permission to patch pods includes the image of every container. The match condition excludes all other users, so the API server
evaluates nothing else for them.
*/}}
{{- define "podshaper.admissionPolicy" -}}
{{- if and .own.writes .values.admissionPolicy.enabled (not (include "podshaper.sharesServiceAccount" .)) }}
{{- $name := print .fullname "-pods" -}}
{{- $labels := include "podshaper.labels" (list . "webhook") -}}
{{- $fields := .own.writes.fields | default list -}}
{{- $keys := concat (.own.writes.keys | default list) (.values.admissionPolicy.extraKeys | default list) -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
    - apiGroups: [""]
      apiVersions: [v1]
      operations: [UPDATE]
      resources: [pods{{ if .own.writes.resize }}, pods/resize{{ end }}]
  matchConditions:
  - name: by-this-service-account
    expression: request.userInfo.username == 'system:serviceaccount:{{ .root.Release.Namespace }}:{{ .serviceAccount }}'
  variables:
  # dyn: compared field by field, also those that this chart does not know
  - {name: metadata, expression: "[dyn(oldObject.metadata), dyn(object.metadata)]"}
  - {name: spec, expression: "[dyn(oldObject.spec), dyn(object.spec)]"}
  {{- if .own.writes.resize }}
  - {name: resizes, expression: "has(request.subResource) && request.subResource == 'resize'"}
  {{- end }}
  validations:
  - expression: >-
      ['finalizers', 'ownerReferences'].all(field, variables.metadata[0][?field] == variables.metadata[1][?field])
    message: finalizers and owners of pods may not be changed
  - expression: >-
      ['labels', 'annotations'].all(field, variables.metadata.all(metadata, metadata[?field].orValue({}).all(key,
        variables.metadata[0][?field][?key] == variables.metadata[1][?field][?key]
        || dyn(key).matches('^([a-z]+[.])?podshaper[.]dev/') || dyn(key) in {{ include "podshaper.celStrings" $keys }})))
    message: only labels and annotations of Podshaper may be changed
  - expression: >-
      variables.spec.all(spec, spec.all(field, field in {{ include "podshaper.celStrings" $fields }}
        {{- if .own.writes.resize }} || variables.resizes && field in ['containers', 'initContainers', 'resources']{{ end }}
        || variables.spec[0][?field] == variables.spec[1][?field]))
    message: {{ if $fields }}only {{ join ", " $fields }} of the spec may be changed{{ else }}the spec may not be changed{{ end }}
  {{- if .own.writes.resize }}
  - expression: >-
      !variables.resizes || ['containers', 'initContainers'].all(list, variables.spec[1][?list].orValue([]).all(after,
        variables.spec[0][?list].orValue([]).exists(before, before.name == after.name
        && [before, after].all(container, container.all(field, field == 'resources' || before[?field] == after[?field])))))
    message: only resources of containers may be changed
  {{- end }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end }}
{{- end -}}

{{/*
The other webhooks of the release that run as the same ServiceAccount. The API server cannot distinguish their writes, so there is no
policy.
*/}}
{{- define "podshaper.sharesServiceAccount" -}}
{{- range $other, $block := omit (include "podshaper.blocks" .root | fromYaml) .name }}
{{- if and $block.enabled (eq $.serviceAccount (dig "serviceAccount" "name" "" $block | default (include "podshaper.fullname" (dict "root" $.root "name" $other "block" $block)))) }}
{{- $other }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A list of strings in CEL */}}
{{- define "podshaper.celStrings" -}}
[{{ range $index, $text := . }}{{ if $index }}, {{ end }}'{{ $text }}'{{ end }}]
{{- end -}}
