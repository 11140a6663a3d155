-- The relay's statements. They belong to no tenant: the relay publishes every row of its service.

-- name: lock_relay
SELECT pg_advisory_lock(hashtext(current_schema() || '.relay'));

-- name: unpublished
SELECT position, id, event_type, tenant_id, aggregate_id, payload, create_time
FROM outbox WHERE publish_time IS NULL ORDER BY position LIMIT $1;

-- name: mark_published
UPDATE outbox SET publish_time = now() WHERE position = ANY($1::bigint[]);
