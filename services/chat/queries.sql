-- The statements of the chat service. $1 is the tenant, where a statement belongs to one.

-- name: claim
-- Of simultaneous copies one inserts; the others get the row as it then stands. A turn that failed with nothing saved
-- passes to this run, its log not to be believed: whose run_id comes back has the turn. No row: the user has as many
-- running turns as allowed.
INSERT INTO turns (
    tenant_id, id, user_id, request_id, content_digest, conversation_id, model, run_id, deadline_time,
    replica_id, log_incarnation, question, token
)
SELECT $1, $2, $3, $4, $5, $6, $7, $8, now() + make_interval(secs => $9), $10, $11, $12, $13
WHERE may_claim($1, $3, $4, $5, $14)
ON CONFLICT (tenant_id, user_id, request_id) DO UPDATE SET
    (
        state, run_id, runs, run_time, replica_id, log_incarnation, question, token, model, deadline_time,
        cancel_request_time, first_text_time
    ) = (
        SELECT tried.* FROM (
            SELECT 'running', excluded.run_id, turns.runs + 1, now(), excluded.replica_id, NULL, excluded.question,
                excluded.token, excluded.model, excluded.deadline_time, NULL::timestamptz, NULL::timestamptz
            WHERE turns.content_digest = excluded.content_digest
                AND turns.message_id IS NULL AND turns.state = 'failed'
            UNION ALL
            SELECT turns.state, turns.run_id, turns.runs, turns.run_time, turns.replica_id, turns.log_incarnation,
                turns.question, turns.token, turns.model, turns.deadline_time, turns.cancel_request_time,
                turns.first_text_time
            WHERE turns.content_digest <> excluded.content_digest
                OR turns.message_id IS NOT NULL OR turns.state <> 'failed'
        ) AS tried
    )
RETURNING id AS turn_id, run_id = $8 AS ours, content_digest = $5 AS same_content, runs, create_time,
    log_incarnation;

-- name: release
DELETE FROM turns WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running';

-- name: mark_log
UPDATE turns SET log_incarnation = $4
WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running'
RETURNING id;

-- name: finish
-- A repeat, after the answer to the first was lost, changes nothing and is still ours.
WITH ended AS (
    UPDATE turns SET
        state = $4, message_id = $5, finish_reason = $6, failure_reason = $7, failure_message = $8,
        cancellation_cause = $9, freed_after_ms = $10, prompt_tokens = $11, completion_tokens = $12,
        first_text_time = coalesce(first_text_time, $13), end_time = now(), question = NULL, token = NULL
    WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running'
    RETURNING tenant_id, id, cancel_request_time
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT $14, tenant_id, id, $15 FROM ended
), woken AS (
    SELECT pg_notify('chat', id::text) FROM ended WHERE cancel_request_time IS NOT NULL
)
SELECT run_id = $3 AS ours, (SELECT count(*) FROM woken) FROM turns WHERE tenant_id = $1 AND id = $2;

-- name: find
SELECT id, request_id, conversation_id, model, create_time, state, message_id, finish_reason, failure_reason,
    failure_message, cancellation_cause, freed_after_ms, prompt_tokens, completion_tokens, first_text_time, end_time,
    rating, rating_reason
FROM turns WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: request_cancel
WITH wished AS (
    UPDATE turns SET cancel_request_time = coalesce(cancel_request_time, now())
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3 AND state = 'running'
    RETURNING id
)
SELECT id, request_id, conversation_id, model, create_time, state, message_id, finish_reason, failure_reason,
    failure_message, cancellation_cause, freed_after_ms, prompt_tokens, completion_tokens, first_text_time, end_time,
    rating, rating_reason, (SELECT pg_notify('chat', 'turns') FROM wished)
FROM turns WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: rate
WITH rated AS (
    UPDATE turns SET rating = $4, rating_reason = $5
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3
    RETURNING id, tenant_id, request_id, conversation_id, model, create_time, state, message_id, finish_reason,
        failure_reason, failure_message, cancellation_cause, freed_after_ms, prompt_tokens, completion_tokens,
        first_text_time, end_time, rating, rating_reason
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT $6, tenant_id, id, $7 FROM rated
)
SELECT * FROM rated;

-- name: renew
-- Replicas that died an hour ago are forgotten: a turn of a replica without a row has no owner either.
WITH forgotten AS (
    DELETE FROM replicas WHERE lease_until < now() - interval '1 hour'
)
INSERT INTO replicas (id, lease_until) VALUES ($1, now() + make_interval(secs => $2))
ON CONFLICT (id) DO UPDATE SET lease_until = excluded.lease_until
RETURNING now() AS renew_time;

-- name: take_over
-- Our own turns that have no run here, $2, come from claims whose answer was lost. Those that were claimed since the
-- lease was last renewed, $4, are not meant: their answer may still be on its way. Orphans are looked for once: a plan
-- that was made while nothing ran would else look again for each running turn.
WITH orphans AS MATERIALIZED (
    SELECT tenant_id, id FROM turns
    WHERE state = 'running' AND CASE
        WHEN replica_id = $1 THEN run_time < $4 AND run_id NOT IN (SELECT unnest($2::uuid[]))
        ELSE NOT EXISTS (SELECT FROM replicas WHERE replicas.id = turns.replica_id AND lease_until > now())
    END
    LIMIT $3 FOR UPDATE SKIP LOCKED
)
UPDATE turns SET replica_id = $1, run_id = gen_random_uuid(), runs = runs + 1, run_time = now()
FROM orphans WHERE turns.tenant_id = orphans.tenant_id AND turns.id = orphans.id
RETURNING turns.tenant_id, user_id, turns.id, run_id, request_id, conversation_id, model, question, token, create_time,
    runs, log_incarnation, extract(epoch FROM deadline_time - now())::float8 AS time_left_s;

-- name: retake
UPDATE turns SET run_id = gen_random_uuid(), runs = runs + 1, run_time = now(), log_incarnation = NULL
WHERE tenant_id = $1 AND id = $2 AND run_id = $3 AND state = 'running'
RETURNING tenant_id, user_id, id, run_id, request_id, conversation_id, model, question, token, create_time, runs,
    log_incarnation, extract(epoch FROM deadline_time - now())::float8 AS time_left_s;

-- name: wishes
SELECT id, extract(epoch FROM now() - cancel_request_time)::float8 AS ago_s
FROM turns WHERE replica_id = $1 AND state = 'running' AND cancel_request_time IS NOT NULL;

-- name: has_others
SELECT id FROM replicas WHERE id <> $1 AND lease_until > now() LIMIT 1;

-- name: retire
WITH retired AS (
    UPDATE replicas SET lease_until = now() WHERE id = $1
)
SELECT pg_notify('chat', 'turns');
