{{/* The common settings of the placement webhooks. Input: a webhook */}}
{{- define "podshaper.placement.own" -}}
# a variable instead of a flag, because the self-test has no such flag
env:
- {name: PODSHAPER_LEASE, value: {{ .fullname }}}
# it owns the Lease, which is deleted with it
- {name: PODSHAPER_DEPLOYMENT, value: {{ .fullname }}}
{{- if .values.metrics.perObject }}
serveEnv:
- {name: PODSHAPER_METRICS_PER_OBJECT, value: "true"}
{{- end }}
# writes ledgers and Events
sideEffects: NoneOnDryRun
matchConditions:
# pods without a controller never reach the webhook
- name: podshaper.dev/has-a-controller
  expression: >-
    object.metadata.?ownerReferences.orValue([]).exists(owner, owner.?controller.orValue(false)
    && !(owner.kind in ['DaemonSet', 'Node']))
rules:
  namespaced:
  - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [create]}
  - {apiGroups: [coordination.k8s.io], resources: [leases], resourceNames: [{{ .fullname }}], verbs: [get, update]}
  cluster:
  # replicas watch placed pods; the leader adopts unplaced pods and resolves slots that two pods have
  - {apiGroups: [""], resources: [pods], verbs: [list, watch, patch]}
  - {apiGroups: [podshaper.dev], resources: [placements], verbs: [get, list, watch, create, patch, delete]}
  - {apiGroups: [podshaper.dev], resources: [placements/status], verbs: [patch]}
  - {apiGroups: [events.k8s.io], resources: [events], verbs: [create, patch]}
  # owners of pods
  - {apiGroups: [apps], resources: [deployments, replicasets, statefulsets], verbs: [get]}
  - {apiGroups: [batch], resources: [cronjobs, jobs], verbs: [get]}
  - {apiGroups: [""], resources: [replicationcontrollers], verbs: [get]}
  {{- range .values.owners }}
  - {apiGroups: [{{ .apiGroup | quote }}], resources: {{ toJson .resources }}, verbs: [get]}
  {{- end }}
# the labels and annotations of placed pods
writes: {keys: [controller.kubernetes.io/pod-deletion-cost]}
selftestOwner: /apis/apps/v1/namespaces/{{ .fullname }}-selftest/replicasets/{{ .fullname }}-selftest
selftestRules:
- {apiGroups: [apps], resources: [replicasets], resourceNames: [{{ .fullname }}-selftest], verbs: [get]}
selftestObjects:
# a workload without pods, for its name; that of the test, so that `helm test --filter` finds it
- apiVersion: apps/v1
  kind: ReplicaSet
  metadata: {name: {{ .fullname }}-selftest, namespace: {{ .fullname }}-selftest}
  spec:
    replicas: 0
    selector: {matchLabels: {podshaper.dev/selftest: {{ .fullname }}}}
    template:
      metadata: {labels: {podshaper.dev/selftest: {{ .fullname }}}}
      spec: {containers: [{name: main, image: {{ include "podshaper.image" . }}}]}
selftest:
  apiVersion: v1
  kind: Pod
  metadata: {name: selftest}
  spec:
    securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
    containers:
    - name: main
      image: {{ include "podshaper.image" . }}
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
{{- end -}}
