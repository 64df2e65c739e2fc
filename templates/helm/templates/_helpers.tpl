{{- define "grantex.name" -}}
{{- $name := .Release.Name -}}
{{- if not (contains .Chart.Name $name) }}{{ $name = printf "%s-%s" $name .Chart.Name }}{{ end -}}
{{- trunc 50 $name | trimSuffix "-" -}}
{{- end }}

{{- define "grantex.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "grantex.labels" -}}
{{ include "grantex.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "grantex.serviceAccount" -}}
{{- if .Values.serviceAccount.name }}{{ .Values.serviceAccount.name }}
{{- else if .Values.serviceAccount.create }}{{ include "grantex.name" . }}
{{- else }}default{{ end -}}
{{- end }}

{{- define "grantex.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{- define "grantex.config" -}}
{{- $ours := dict "state_dir" "/state/grantex-beam" "status_host" "0.0.0.0" "status_port" 8787 "log_format" "json" -}}
{{- $_ := set $ours "standby" .Values.standby -}}
{{- with .Values.webhook }}{{ if .enabled -}}
{{- $_ := merge $ours (dict "webhook_host" "0.0.0.0" "webhook_port" (int .port) "webhook_path" .path "webhook_secret" .secret) -}}
{{- end }}{{ end -}}
{{- merge $ours .Values.config | toYaml -}}
{{- end }}
