{{/* Name of all objects. */}}
{{- define "velda.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-apiserver" (.Release.Name | trunc 40 | trimSuffix "-")) -}}
{{- end }}

{{- define "velda.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
app.kubernetes.io/name: velda-apiserver
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
{{- end }}

{{/* What the server's pods have and the pods of hooks do not. */}}
{{- define "velda.selector" -}}
app.kubernetes.io/name: velda-apiserver
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end }}

{{- define "velda.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "velda.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- define "velda.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- define "velda.webhookService" -}}
{{- printf "%s-webhook" (include "velda.fullname" .) -}}
{{- end }}

{{- define "velda.certificateSecret" -}}
{{- printf "%s-tls" (include "velda.fullname" .) -}}
{{- end }}

{{- define "velda.brokerHost" -}}
{{- printf "%s.%s.svc.%s" (include "velda.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end }}

{{/* AgentPools outlive the release: it is told to keep them, or their CRD is not its own. */}}
{{- define "velda.keepsPools" -}}
{{- if or .Values.crds.keep (not .Values.crds.install) }}true{{ end -}}
{{- end }}

{{/* Which namespaces' AgentPools the webhooks look at. */}}
{{- define "velda.poolNamespaces" -}}
matchExpressions:
  - key: kubernetes.io/metadata.name
    operator: {{ ternary "In" "NotIn" (not (empty .Values.namespaces)) }}
    values: {{ .Values.namespaces | default (append .Values.webhook.excludedNamespaces "kube-system" | uniq) | toJson }}
{{- end }}

{{/* Updates that leave spec as it was (finalizers, labels) and objects on their way out pass while we are down. */}}
{{- define "velda.poolConditions" -}}
- name: not-deleting
  expression: "!has(object.metadata.deletionTimestamp)"
- name: spec-changed
  expression: "request.operation != 'UPDATE' || object.spec != oldObject.spec"
{{- end }}

{{- define "velda.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "velda.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods of the release may run. */}}
{{- define "velda.placement" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
