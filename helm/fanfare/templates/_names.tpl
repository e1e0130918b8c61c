{{- /* Names and labels. Those of a role take (list ROLE .). */}}

{{- define "fanfare.name" -}}
{{- $name := .Values.fullnameOverride }}
{{- if not $name }}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) }}
{{- end }}
{{- /* Room for -publish: a Service's name has 63 characters at most. */}}
{{- $name | trunc 55 | trimSuffix "-" }}
{{- end }}

{{- define "fanfare.selector" -}}
app.kubernetes.io/name: {{ (index . 1).Chart.Name }}
app.kubernetes.io/instance: {{ (index . 1).Release.Name }}
app.kubernetes.io/component: {{ index . 0 }}
{{- end }}

{{- define "fanfare.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "fanfare.roleLabels" -}}
{{ include "fanfare.selector" . }}
{{ include "fanfare.commonLabels" (index . 1) }}
{{- end }}

{{- define "fanfare.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "fanfare.commonLabels" . }}
{{- end }}

{{- define "fanfare.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
