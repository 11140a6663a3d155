-- A service of the smallest kind, for the tests of the shelf: it counts.

-- name: publish
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
SELECT $1, $2, $3, payload FROM unnest($4::bytea[]) AS payload;

-- name: publish_unheard
-- As if it had waited for the relay already.
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload, create_time)
VALUES ($1, $2, $3, $4, now() - interval '1 second');

-- name: take
WITH received AS (
    INSERT INTO inbox (event_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING event_id
)
INSERT INTO effects (tenant_id, document_id, number) SELECT $2, $3, $4 FROM received;

-- name: effects
SELECT document_id, number FROM effects WHERE tenant_id = $1 ORDER BY position;

-- name: unpublished
SELECT count(*) AS count FROM outbox WHERE tenant_id = $1 AND publish_time IS NULL;

-- name: publish_again
WITH again AS (UPDATE outbox SET publish_time = NULL WHERE tenant_id = $1)
SELECT pg_notify('tally', 'outbox');

-- name: end_connection
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE $1;

-- name: end_relay
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: notify
SELECT pg_notify('tally', $1);

-- name: slow
SELECT pg_sleep(60);

-- name: find_running
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND state = 'active' AND query LIKE $1 AND pid <> pg_backend_pid();

-- name: find_waiting
-- Connections whose last statement was this one.
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND state = 'idle' AND query LIKE $1 AND pid <> pg_backend_pid();

-- name: divide
SELECT 1 / $1::int AS quotient;

-- name: outbox
SELECT id, payload, create_time FROM outbox WHERE tenant_id = $1 ORDER BY position;
