{{- /* The Secret that both roles read: one of yours, or the chart's own where its values are set. */}}

{{- define "fanfare.secretValues" -}}
{{- $values := dict }}
{{- range $key, $value := dict "auth-secret" (.Values.auth).secret "publish-keys" .Values.publish.keys "redis-password" .Values.redis.password }}
{{- if $value }}{{ $_ := set $values $key $value }}{{ end }}
{{- end }}
{{- toJson $values }}
{{- end }}

{{- define "fanfare.secretName" -}}
{{- .Values.existingSecret | default (include "fanfare.name" .) }}
{{- end }}

{{- /* What a schema can't say: mistakes that lie between values. */}}
{{- define "fanfare.checkSecret" -}}
{{- $values := include "fanfare.secretValues" . | fromJson }}
{{- if and $values .Values.existingSecret }}
{{- fail (printf "existingSecret is %q, so the chart makes no Secret: put %s there and take it out of the values" .Values.existingSecret (keys $values | sortAlpha | join ", ")) }}
{{- end }}
{{- if $values }}
{{- if not (hasKey $values "auth-secret") }}{{ fail "auth.secret is not set: a Secret made by the chart holds auth.secret and publish.keys, or name one of your own in existingSecret" }}{{ end }}
{{- if not (hasKey $values "publish-keys") }}{{ fail "publish.keys is not set: a Secret made by the chart holds auth.secret and publish.keys, or name one of your own in existingSecret" }}{{ end }}
{{- end }}
{{- if contains "@" .Values.redis.url }}
{{- fail "redis.url holds credentials, and it is no Secret: use redis.username and redis.password, or the key redis-url of a Secret of your own with redis.url empty" }}
{{- end }}
{{- if and $values (not .Values.redis.url) }}
{{- fail "redis.url is empty: then the key redis-url of a Secret of your own has it, named in existingSecret" }}
{{- end }}
{{- end }}
