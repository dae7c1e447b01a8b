{{/*
`peerpods advertise` on each node writes the number of VMs into the status of the node, as the extended resource that pods request.

RBAC cannot limit a permission to the own node or to one resource. A ValidatingAdmissionPolicy does: it compares the node of the pod that
the token was issued for.
*/}}
{{- define "peerpods.nodeCapacity" -}}
{{- $name := print .fullname "-node-capacity" -}}
{{- $labels := include "podshaper.labels" (list . "node-capacity") -}}
{{- $capacity := .values.nodeCapacity -}}
{{- $resource := $capacity.resource | default .values.podVMExtendedResource -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
spec:
  selector:
    matchLabels: {{- include "podshaper.selectorLabels" (list . "node-capacity") | nindent 6 }}
  # what a node advertises outlives the pod, so that many may be replaced at a time
  updateStrategy: {rollingUpdate: {maxUnavailable: 25%}}
  template:
    metadata:
      {{- with .values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
      labels: {{- include "podshaper.podLabels" (list . "node-capacity") | nindent 8 }}
    spec:
      serviceAccountName: {{ $name }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with .values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 6 }}
      {{- end }}
      {{- with .values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $capacity.nodeSelector }}
      nodeSelector: {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $capacity.tolerations }}
      tolerations: {{- toYaml . | nindent 6 }}
      {{- end }}
      securityContext: {{- toYaml .values.podSecurityContext | nindent 8 }}
      containers:
      - name: advertise
        image: {{ include "podshaper.image" . }}
        imagePullPolicy: {{ .values.image.pullPolicy }}
        args:
        - advertise
        - --resource={{ $resource }}
        - --count={{ $capacity.count }}
        - --node-name=$(NODE_NAME)
        - --log-level={{ .values.log.level }}
        - --log-format={{ .values.log.format }}
        env:
        - name: NODE_NAME
          valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
        {{- with $capacity.resources }}
        resources: {{- toYaml . | nindent 10 }}
        {{- end }}
        securityContext: {{- toYaml .values.securityContext | nindent 10 }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- $labels | nindent 4 }}
automountServiceAccountToken: false
{{- if .values.rbac.create }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
rules:
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
- apiGroups: [""]
  resources: [nodes/status]
  verbs: [patch]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ $name }}}
subjects:
- {kind: ServiceAccount, name: {{ $name }}, namespace: {{ .root.Release.Namespace }}}
{{- end }}
---
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
      resources: [nodes/status]
  matchConditions:
  - name: by-this-service-account
    expression: request.userInfo.username == 'system:serviceaccount:{{ .root.Release.Namespace }}:{{ $name }}'
  variables:
  # dyn: looked at field by field, whichever fields this version of Kubernetes knows
  - {name: before, expression: dyn(oldObject.status)}
  - {name: after, expression: dyn(object.status)}
  validations:
  - expression: request.userInfo.extra[?'authentication.kubernetes.io/node-name'].orValue([]) == [request.name]
    message: only the status of the node that the pod runs on may be changed
  - expression: >-
      ['labels', 'annotations', 'finalizers', 'ownerReferences'].all(field,
        dyn(object.metadata)[?field] == dyn(oldObject.metadata)[?field])
    message: only the node's status may be changed
  - expression: >-
      [variables.before, variables.after].all(status, status.all(field,
        field in ['capacity', 'allocatable'] || variables.before[?field] == variables.after[?field]))
    message: only capacity and allocatable may be changed
  - expression: >-
      ['capacity', 'allocatable'].all(field, [variables.before, variables.after].all(status,
        status[?field].orValue({}).all(resource,
          resource == '{{ $resource }}' || variables.before[?field][?resource] == variables.after[?field][?resource])))
    message: only {{ $resource }} may be changed
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels: {{- $labels | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: [Deny]
{{- end -}}
