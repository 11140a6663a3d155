{{/* The environment of one service: what all get, then its own. Takes (root, name, service). No certificate: the
sidecar has it. */}}
{{- define "parley.env" -}}
{{- $root := index . 0 }}{{ $name := index . 1 }}{{ $service := index . 2 -}}
{{- $common := dict
  "LISTEN_ADDRESS" "0.0.0.0:8080"
  "METRICS_ADDRESS" "0.0.0.0:9090"
  "JWKS_FILE" "/etc/parley/jwks/jwks.json"
  "POSTGRES_DSN" (printf "postgresql://%s@%s/%s" $name $root.Values.postgres.address $root.Values.postgres.database)
  "POSTGRES_PASSWORD_FILE" "/etc/parley/secrets/postgres-password"
  "NATS_URL" $root.Values.nats.url
  "REFLECTION" "1"
  "STOP_GRACE_S" ($service.stopGraceSeconds | default 10 | toString) -}}
{{- range $key, $value := merge (dict) $service.env $common }}
- {name: PARLEY_{{ $key }}, value: {{ tpl $value $root | quote }}}
{{- end }}
{{- with $root.Values.otlp.endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- end }}
