{{- /* Fanfare's settings as environment variables. */}}

{{- /* Those of KEYS that VALUES has: (list PREFIX VALUES KEYS). A variable's name follows from its key. */}}
{{- define "fanfare.settings" -}}
{{- $prefix := index . 0 }}
{{- $values := index . 1 | default dict }}
{{- range $key := index . 2 }}
{{- $text := include "fanfare.text" (get $values $key) }}
{{- if $text }}
- name: FANFARE_{{ $prefix }}{{ snakecase $key | upper }}
  value: {{ quote $text }}
{{- end }}
{{- end }}
{{- end }}

{{- /* A value as Fanfare reads it. Numbers from a file are floating-point ones to Helm: 1e+06. */}}
{{- define "fanfare.text" -}}
{{- if kindIs "invalid" . }}{{ else if kindIs "slice" . }}{{ join "," . }}{{ else if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- /* One variable from the Secret: (list . VARIABLE KEY OPTIONAL). */}}
{{- define "fanfare.secretVariable" }}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "fanfare.secretName" (index . 0) }}
      key: {{ index . 2 }}
      {{- if index . 3 }}
      optional: true
      {{- end }}
{{- end }}

{{- define "fanfare.environment" -}}
{{- $role := index . 0 }}
{{- with index . 1 }}
{{- if .Values.redis.url }}
{{- include "fanfare.settings" (list "REDIS_" .Values.redis (list "url")) }}
{{- else }}
{{- include "fanfare.secretVariable" (list . "FANFARE_REDIS_URL" "redis-url" false) }}
{{- end }}
{{- include "fanfare.secretVariable" (list . "FANFARE_REDIS_PASSWORD" "redis-password" true) }}
{{- include "fanfare.settings" (list "REDIS_" .Values.redis (list "username" "prefix" "partitions")) }}
{{- /* Edges verify tokens with it, publishers make some. */}}
{{- include "fanfare.secretVariable" (list . "FANFARE_AUTH_SECRET" "auth-secret" false) }}
{{- if eq $role "edge" }}
{{- include "fanfare.settings" (list "AUTH_" .Values.auth (list "grants" "cookie" "queryToken")) }}
{{- include "fanfare.settings" (list "" .Values.edge (list "anonymousChannels" "maxConnections" "maxConnectionsPerUser" "maxConnectionsPerUserAction" "maxConnectionsPerAddress" "trustedProxies" "maxChannels" "heartbeatInterval" "idleTimeout" "maxAge" "drainDelay" "drainTimeout")) }}
{{- else }}
{{- include "fanfare.secretVariable" (list . "FANFARE_PUBLISH_KEYS" "publish-keys" false) }}
{{- include "fanfare.settings" (list "REDIS_" .Values.redis (list "minReplicas")) }}
{{- include "fanfare.settings" (list "" .Values.publish (list "maxPayload" "drainDelay")) }}
{{- end }}
{{- include "fanfare.settings" (list "CORS_" .Values.cors (list "origins")) }}
{{- include "fanfare.settings" (list "" .Values (list "historySize" "historyAge" "idempotencyWindow" "log")) }}
{{- end }}
{{- end }}

{{- /* A duration in whole seconds, rounded up. The schema lets only through what is understood here. */}}
{{- define "fanfare.seconds" -}}
{{- $milliseconds := 0 }}
{{- range regexFindAll "[0-9]+(ms|s|m|h)" . -1 }}
{{- $unit := get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) (regexFind "[a-z]+" .) }}
{{- $milliseconds = add $milliseconds (mul (regexFind "[0-9]+" . | int64) $unit) }}
{{- end }}
{{- div (add $milliseconds 999) 1000 }}
{{- end }}

{{- /* How long a pod of this role takes to leave, until the last goodbye. Publishers have nobody to say it to. */}}
{{- define "fanfare.drainSeconds" -}}
{{- add (include "fanfare.seconds" .drainDelay) (include "fanfare.seconds" (.drainTimeout | default "0")) }}
{{- end }}
