{{/* The serving certificate by tls.mode. An existing Secret needs no object. */}}
{{- define "podshaper.certificate" -}}
{{- $mode := .values.tls.mode -}}
{{- if eq $mode "selfManaged" -}}
{{- include "podshaper.certificate.selfManaged" . -}}
{{- else if eq $mode "certManager" -}}
{{- include "podshaper.certificate.certManager" . -}}
{{- end -}}
{{- end -}}

{{/*
The webhook fills this Secret. The chart creates it so that uninstalling the release deletes it. It has no `data`, and the webhook
configuration has no caBundle, so that tools that merge keep what the webhook wrote: helm upgrade and rollback (three-way merge),
server-side apply, Argo CD, Flux. Tools that replace objects (`helm upgrade --force`, Argo CD's Replace=true) empty both. The webhook
writes them again at once, but calls fail until then.
*/}}
{{- define "podshaper.certificate.selfManaged" -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ include "podshaper.tlsSecret" . }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "podshaper.labels" (list . "webhook") | nindent 4 }}
type: Opaque
{{- end -}}

{{/*
Without an issuer of the user, a CA signs the certificate, so that a renewal does not change the CA bundle. The CA keeps its key on
renewal, so that the old and the new CA verify the same certificates.
*/}}
{{- define "podshaper.certificate.certManager" -}}
{{- $labels := include "podshaper.labels" (list . "webhook") -}}
{{- $issuer := .values.tls.certManager.issuerRef -}}
{{- if not $issuer.name -}}
{{- $issuer = dict "name" (print .fullname "-ca") -}}
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ .fullname }}-self-signed
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  selfSigned: {}
---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ .fullname }}-ca
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  secretName: {{ .fullname }}-ca
  isCA: true
  commonName: {{ .fullname | trunc 61 }}-ca
  duration: 87600h
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Never}
  issuerRef: {name: {{ .fullname }}-self-signed}
---
apiVersion: cert-manager.io/v1
kind: Issuer
metadata:
  name: {{ .fullname }}-ca
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  ca: {secretName: {{ .fullname }}-ca}
---
{{ end -}}
apiVersion: cert-manager.io/v1
kind: Certificate
metadata:
  name: {{ .fullname }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  secretName: {{ include "podshaper.tlsSecret" . }}
  dnsNames: [{{ include "podshaper.serverName" . }}]
  usages: [digital signature, server auth]
  duration: {{ .values.tls.certManager.duration }}
  privateKey: {algorithm: ECDSA, size: 256, rotationPolicy: Always}
  issuerRef: {{- toYaml $issuer | nindent 4 }}
{{- end -}}
