{{- /* An application's own paths, which no variable could hold: a file for the edges. Its keys are those of the values. */}}

{{- define "fanfare.routes" -}}
{{- $routes := list }}
{{- range .Values.edge.routes }}
{{- $route := deepCopy . }}
{{- /* Numbers from a file are floating-point ones to Helm: 20.0 is no number of events. */}}
{{- with .replay }}{{ $_ := set $route "replay" (int64 .) }}{{ end }}
{{- range $name, $value := .forward_headers }}
{{- $_ := set $route.forward_headers $name (dict "file" (printf "/run/secrets/fanfare/%s" $value.secretKey)) }}
{{- end }}
{{- $routes = append $routes $route }}
{{- end }}
{{- toToml (dict "routes" $routes) }}
{{- end }}

{{- /* The Secret's keys that edges read as files: those, and no others, are mounted. */}}
{{- define "fanfare.routeSecrets" -}}
{{- $keys := list }}
{{- range .Values.edge.routes }}
{{- range .forward_headers }}{{ $keys = append $keys .secretKey }}{{ end }}
{{- end }}
{{- toJson ($keys | uniq | sortAlpha) }}
{{- end }}
