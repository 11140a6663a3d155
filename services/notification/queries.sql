-- Statements of the notification service.

-- name: add
-- Inbox row, place in the feed and notification stand or fall together; an event that came before adds nothing.
WITH received AS (
    INSERT INTO inbox (event_id) VALUES ($1) ON CONFLICT DO NOTHING RETURNING event_id
), place AS (
    INSERT INTO feeds (tenant_id, user_id, last_sequence)
    SELECT $2, $3, 1 FROM received
    ON CONFLICT (tenant_id, user_id) DO UPDATE SET last_sequence = feeds.last_sequence + 1
    RETURNING tenant_id, user_id, last_sequence
), added AS (
    INSERT INTO notifications (tenant_id, user_id, sequence, kind, subject, create_time)
    SELECT tenant_id, user_id, last_sequence, $4, $5::jsonb, $6 FROM place
    RETURNING user_id
)
SELECT pg_notify('notification', user_id::text) FROM added;

-- name: newest
SELECT id, sequence, create_time, kind, subject FROM notifications
WHERE tenant_id = $1 AND user_id = $2 AND sequence < $3
ORDER BY sequence DESC LIMIT $4;

-- name: after
SELECT id, sequence, create_time, kind, subject FROM notifications
WHERE tenant_id = $1 AND user_id = $2 AND sequence > $3
ORDER BY sequence LIMIT $4;
