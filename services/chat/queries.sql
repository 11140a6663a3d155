-- The statements of the chat service. $1 is always the tenant.

-- name: claim
-- Of simultaneous copies one inserts; the others get the row as it then stands. A turn that failed with nothing saved,
-- or whose replica is gone, passes to this run: whose run_id comes back has the turn.
INSERT INTO turns (tenant_id, id, user_id, request_id, content_digest, conversation_id, model, run_id, deadline_time)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9))
ON CONFLICT (tenant_id, user_id, request_id) DO UPDATE SET
    (state, run_id, model, failure_reason, deadline_time) = (
        SELECT
            CASE WHEN again THEN 'running' ELSE turns.state END,
            CASE WHEN again THEN excluded.run_id ELSE turns.run_id END,
            CASE WHEN again THEN excluded.model ELSE turns.model END,
            CASE WHEN again THEN coalesce(turns.failure_reason, 'SERVICE_UNAVAILABLE') ELSE turns.failure_reason END,
            CASE WHEN again THEN excluded.deadline_time ELSE turns.deadline_time END
        FROM (
            SELECT turns.content_digest = excluded.content_digest AND turns.message_id IS NULL
                AND (turns.state = 'failed' OR (turns.state = 'running' AND turns.deadline_time < now())) AS again
        ) AS tried
    )
RETURNING id, run_id = $8 AS ours, content_digest = $5 AS same_content;

-- name: release
WITH failed_again AS (
    UPDATE turns SET state = 'failed'
    WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running' AND failure_reason IS NOT NULL
)
DELETE FROM turns
WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running' AND failure_reason IS NULL;

-- name: finish
WITH ended AS (
    UPDATE turns SET
        state = $4, message_id = $5, finish_reason = $6, failure_reason = $7, failure_message = $8,
        prompt_tokens = $9, completion_tokens = $10, end_time = now()
    WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running'
    RETURNING tenant_id, id
)
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
SELECT $11, tenant_id, id, $12 FROM ended;

-- name: find
SELECT conversation_id, model, create_time, state, message_id, finish_reason, failure_reason, failure_message,
    prompt_tokens, completion_tokens, state = 'running' AND deadline_time < now() AS overdue
FROM turns WHERE tenant_id = $1 AND user_id = $2 AND id = $3;
