{{- define "scoreboard.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "scoreboard.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "scoreboard.labels" -}}
{{ include "scoreboard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- define "scoreboard.secret" -}}
{{- .Values.auth.existingSecret | default (include "scoreboard.fullname" .) -}}
{{- end -}}

{{- define "scoreboard.leaderUrl" -}}
{{- printf "http://%s-leader:8080" (include "scoreboard.fullname" .) -}}
{{- end -}}

{{- /* What both kinds of pods have: no rights, no token of the cluster, and none of the variables that Kubernetes sets for
services. A pod beside a service named `scoreboard` would have SCOREBOARD_PORT. */ -}}
{{- define "scoreboard.pod" -}}
enableServiceLinks: false
automountServiceAccountToken: false
terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "scoreboard.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "scoreboard.environment" -}}
- name: SCOREBOARD_AUTH_JWT_SECRET
  valueFrom:
    secretKeyRef:
      name: {{ include "scoreboard.secret" . }}
      key: jwt-secret
- name: SCOREBOARD_REPLICATION_PUBLIC_URL
  value: {{ .Values.publicUrl | default (include "scoreboard.leaderUrl" .) | quote }}
- name: SCOREBOARD_REPLICATION_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
{{- end -}}

{{- /* A node listens after its recovery, which may take minutes. A replica that waits for its leader is alive and not
ready. After the pod is taken out of its services the node still serves for some seconds: they learn of it late. */ -}}
{{- define "scoreboard.probes" -}}
ports:
  - name: http
    containerPort: 8080
startupProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 5
  failureThreshold: 720
livenessProbe:
  httpGet: {path: /healthz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 2
  timeoutSeconds: 2
lifecycle:
  preStop:
    exec:
      command: [sleep, "5"]
{{- end -}}
