{{/*
The CustomResourceDefinitions of a webhook, and the permissions of the cluster roles view, edit and admin. They are templates, because
Helm does not upgrade files in crds/.
*/}}
{{- define "podshaper.crds" -}}
{{- if and .own.crds .root.Values.crds.enabled -}}
{{- $labels := include "podshaper.labels" (list . "crds") | fromYaml -}}
{{- $others := false }}
{{- range $kind := .own.crds }}
{{- if not (has $kind.plural $.root.Values.crds.except) }}
{{- if $others }}
---
{{- end }}
{{- $others = true }}
{{ $crd := $.root.Files.Get (printf "files/crds/%s.yaml" $kind.plural) | fromYaml }}
{{- $_ := set $crd.metadata "labels" $labels }}
{{- if $.root.Values.crds.keep }}
{{- $_ := set $crd.metadata "annotations" (dict "helm.sh/resource-policy" "keep") }}
{{- end }}
{{- toYaml $crd }}
{{- end }}
{{- end }}
{{- range $role, $verbs := ternary (dict "view" (list "get" "list" "watch") "edit" (list "create" "delete" "deletecollection" "patch" "update")) dict .values.rbac.create }}
{{- $rules := list }}
{{- range $.own.crds }}
{{- if or (eq $role "view") (not .readOnly) }}
{{- $rules = append $rules (dict "apiGroups" (list .group) "resources" (list .plural) "verbs" $verbs) }}
{{- end }}
{{- end }}
{{- if $rules }}
{{- if $others }}
---
{{- end }}
{{- $others = true }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $.fullname }}-{{ $role }}
  labels:
    rbac.authorization.k8s.io/aggregate-to-{{ $role }}: "true"
    {{- if eq $role "edit" }}
    rbac.authorization.k8s.io/aggregate-to-admin: "true"
    {{- end }}
    {{- toYaml $labels | nindent 4 }}
rules:
{{- toYaml $rules | nindent 0 }}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
