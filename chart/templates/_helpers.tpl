{{/* Name of all objects: velda-apiserver for the release velda. */}}
{{- define "velda.fullname" -}}
{{- .Values.fullnameOverride | default (printf "%s-apiserver" (.Release.Name | trimSuffix "-apiserver" | trunc 40 | trimSuffix "-")) -}}
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

{{/* cert-manager gets one of another name: to change over never lets two write the same. */}}
{{- define "velda.certificateSecret" -}}
{{- printf "%s-%s" (include "velda.fullname" .) (ternary "issued-tls" "tls" .Values.certificates.certManager.enabled) -}}
{{- end }}

{{/* Annotations of the webhook configurations: cert-manager writes its CA into them. */}}
{{- define "velda.webhookAnnotations" -}}
{{- if .Values.certificates.certManager.enabled -}}
annotations:
  cert-manager.io/inject-ca-from: {{ .Release.Namespace }}/{{ include "velda.fullname" . }}
{{- end -}}
{{- end }}

{{- define "velda.authorityConfigMap" -}}
{{- printf "%s-ca" (include "velda.fullname" .) -}}
{{- end }}

{{- define "velda.brokerHost" -}}
{{- printf "%s.%s.svc.%s" (include "velda.fullname" .) .Release.Namespace .Values.clusterDomain -}}
{{- end }}

{{/* Whether the gRPC port is served by TLS; a certificate is shown over TLS only. */}}
{{- define "velda.brokerTls" -}}
{{- if or .Values.broker.tls (eq .Values.agents.authentication "mtls") }}true{{ end -}}
{{- end }}

{{/* All that agents and clients may call the broker by, as JSON. */}}
{{- define "velda.brokerNames" -}}
{{- $names := list }}
{{- $services := list (list (include "velda.fullname" .) .Release.Namespace) }}
{{- range .Values.broker.aliasNamespaces }}
{{- $services = append $services (list "velda-apiserver" .) }}
{{- end }}
{{- range $services }}
{{- $name := printf "%s.%s" (index . 0) (index . 1) }}
{{- $names = concat $names (list $name (print $name ".svc") (printf "%s.svc.%s" $name $.Values.clusterDomain)) }}
{{- end }}
{{- with .Values.agents.brokerAddress }}
{{- $names = append $names (regexReplaceAll ":[0-9]+$" . "" | trimAll "[]") }}
{{- end }}
{{- $names | uniq | toJson }}
{{- end }}

{{/* What velda.yaml has to say of TLS: the agent's certificate, or (a key that our own agent alone knows) TLS without. */}}
{{- define "velda.agentTls" -}}
{{- if eq .Values.agents.authentication "mtls" }}
daemon_config:
  mtls_client_cert_path: /var/run/secrets/velda.io/certificate/tls.crt
  mtls_client_key_path: /var/run/secrets/velda.io/certificate/tls.key
{{- else if .Values.broker.tls }}
broker:
  tls: true
{{- end }}
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
    values: {{ .Values.namespaces | default (append (.Values.webhook.excludedNamespaces | default list) "kube-system" | uniq) | toJson }}
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

{{/*
A pod that runs one command of the image to its end. Arguments: root, component, account, args, and volume (YAML text;
mounted at /etc/velda).
*/}}
{{- define "velda.commandPod" -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
securityContext: {{- include "velda.podSecurity" .root | nindent 2 }}
{{- with include "velda.placement" .root }}
{{- . | nindent 0 }}
{{- end }}
containers:
  - name: {{ .component }}
    image: {{ include "velda.image" .root | quote }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    args: {{- .args | toYaml | nindent 6 }}
    resources: {{- toYaml .root.Values.resources | nindent 6 }}
    securityContext: {{- include "velda.containerSecurity" .root | nindent 6 }}
    {{- if .volume }}
    volumeMounts:
      - name: files
        mountPath: /etc/velda
        readOnly: true
    {{- end }}
{{- with .volume }}
volumes:
  - name: files
    {{- . | nindent 4 }}
{{- end }}
{{- end }}

{{/* What a NetworkPolicy lets all pods of the release reach. */}}
{{- define "velda.egress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
# The API server is no pod in most clusters, and nothing but its ports is known of it.
- ports:
    {{- range .Values.networkPolicy.apiServerPorts }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end }}

{{/* Annotations of a hook, which goes however it ends; helm prints its log. Arguments: hook, weight. */}}
{{- define "velda.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded,hook-failed
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}
