{{/*
A set of rights with its binding. Arguments: root, name, rules (YAML text), account (every user of the cluster when it
is empty), and namespace (a Role there; a ClusterRole when it is empty), annotations (YAML text).
*/}}
{{- define "velda.grant" -}}
{{- $kind := ternary "Role" "ClusterRole" (not (empty .namespace)) }}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}
metadata: {{- include "velda.grantMetadata" . | nindent 2 }}
rules: {{- .rules | nindent 2 }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $kind }}Binding
metadata: {{- include "velda.grantMetadata" . | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $kind }}
  name: {{ .name }}
subjects:
  {{- if .account }}
  - kind: ServiceAccount
    name: {{ .account }}
    namespace: {{ .root.Release.Namespace }}
  {{- else }}
  - kind: Group
    apiGroup: rbac.authorization.k8s.io
    name: system:authenticated
  {{- end }}
{{- end }}

{{- define "velda.grantMetadata" -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels: {{- include "velda.labels" .root | nindent 2 }}
{{- with .annotations }}
annotations: {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where AgentPools are served. */}}
{{- define "velda.rules.pools" -}}
- apiGroups: [velda.io]
  resources: [agentpools]
  verbs: [get, list, watch, patch]
- apiGroups: [velda.io]
  resources: [agentpools/status]
  verbs: [patch]
# To be named as an owner whose deletion waits for its pods.
- apiGroups: [velda.io]
  resources: [agentpools/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete, patch]
- apiGroups: [""]
  resources: [resourcequotas]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [list, watch, create, delete]
{{- if .Values.agents.createConfigMap }}
# By server-side apply, so that even `create` is bound to the name.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ .Values.agents.configMap | quote }}]
  verbs: [get, create, patch, delete]
{{- end }}
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{/* Every user of the cluster: our CA, which is no secret. */}}
{{- define "velda.rules.everyone" -}}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ include "velda.authorityConfigMap" . }}]
  verbs: [get]
{{- end }}

{{/* Who scrapes the metrics. */}}
{{- define "velda.rules.metrics" -}}
- nonResourceURLs: [/metrics]
  verbs: [get]
{{- end }}

{{/* The release's namespace: it itself, the Lease, the certificates and their CA, the label on the leader's pod. */}}
{{- define "velda.rules.release" -}}
# By server-side apply, so that even `create` is bound to the name.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [{{ include "velda.fullname" . }}]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [{{ include "velda.certificateSecret" . }}]
  verbs: [get, list, watch{{ if not .Values.certificates.certManager.enabled }}, update{{ end }}]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ include "velda.authorityConfigMap" . }}]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, patch]
# The webhook configurations' owner.
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [{{ .Release.Namespace }}]
  verbs: [get]
{{- end }}

{{/* What belongs to no namespace: who asks and what they may do; our CA and an owner in the webhook configurations. */}}
{{- define "velda.rules.cluster" -}}
- apiGroups: [authentication.k8s.io]
  resources: [tokenreviews]
  verbs: [create]
- apiGroups: [authorization.k8s.io]
  resources: [subjectaccessreviews]
  verbs: [create]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingwebhookconfigurations, mutatingwebhookconfigurations]
  resourceNames: [{{ include "velda.fullname" . }}]
  verbs: [get, list, watch, patch]
{{- end }}

{{/* The hook of helm uninstall, where AgentPools stay. */}}
{{- define "velda.rules.release-pools" -}}
- apiGroups: [velda.io]
  resources: [agentpools]
  verbs: [list, patch]
{{- end }}

{{/* The hook of helm uninstall, where they go. */}}
{{- define "velda.rules.delete-pools" -}}
- apiGroups: [velda.io]
  resources: [agentpools]
  verbs: [list, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, delete]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [list, delete]
{{- if .Values.agents.createConfigMap }}
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ .Values.agents.configMap | quote }}]
  verbs: [list, delete]
{{- end }}
{{- end }}

{{/*
helm test: the broker is asked for a pool, and an AgentPool is written by dry run, for which the webhook asks whether
pods may be created.
*/}}
{{- define "velda.rules.selftest" -}}
- apiGroups: [velda.io]
  resources: [agentpools]
  verbs: [get, create]
- apiGroups: [""]
  resources: [pods]
  verbs: [create]
{{- end }}
