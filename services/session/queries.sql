-- The statements of the session service: one per question, one per change with its event.
-- $1 is always the tenant, $2 the user.
--
-- open_turn and close_turn lock the conversation, then read its last_position from the locked row: that number, not
-- a clock, orders the messages. Everything else in a statement is read from its snapshot, so a simultaneous copy that
-- committed meanwhile is noticed (its unique key is taken) but not seen; the row then says so, and the store runs the
-- statement again.

-- name: create_conversation
WITH made AS (
    INSERT INTO conversations (tenant_id, user_id, id, title, request_id, request_digest)
    VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (tenant_id, user_id, request_id) DO UPDATE SET request_id = EXCLUDED.request_id
    RETURNING *
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.session.v1.ConversationCreated', tenant_id, id, $7::bytea FROM made WHERE id = $3
)
SELECT id, title, create_time, update_time, request_digest FROM made;

-- name: get_conversation
SELECT id, title, create_time, update_time FROM conversations WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: list_conversations
SELECT id, title, create_time, update_time FROM conversations
WHERE tenant_id = $1 AND user_id = $2
    AND (update_time, id) < (coalesce($3::timestamptz, 'infinity'), $4::uuid)
ORDER BY update_time DESC, id DESC LIMIT $5;

-- name: rename_conversation
UPDATE conversations SET title = $4, update_time = clock_timestamp()
WHERE tenant_id = $1 AND user_id = $2 AND id = $3
RETURNING id, title, create_time, update_time;

-- name: delete_conversation
WITH deleted AS (
    DELETE FROM conversations WHERE tenant_id = $1 AND user_id = $2 AND id = $3 RETURNING tenant_id, id
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.session.v1.ConversationDeleted', tenant_id, id, $4::bytea FROM deleted
)
SELECT id FROM deleted;

-- name: list_messages
-- No row: no such conversation. A row without id: no message after $4. The page ends at $5 messages or when the
-- messages before one fill $6 bytes; `found` counts up to one message more than the page may have.
SELECT page.* FROM conversations
LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT *, sum(size_bytes) OVER (ORDER BY position) - size_bytes AS bytes_before, count(*) OVER () AS found
        FROM (
            SELECT * FROM messages
            WHERE tenant_id = $1 AND conversation_id = conversations.id AND position > $4
            ORDER BY position LIMIT $5::bigint + 1
        ) AS candidates
    ) AS measured
    WHERE bytes_before < $6 ORDER BY position LIMIT $5::bigint
) AS page ON true
WHERE conversations.tenant_id = $1 AND conversations.user_id = $2 AND conversations.id = $3
ORDER BY page.position;

-- name: open_turn
-- No row: no such conversation. Otherwise the history and then, as the last row, the question; a row without id:
-- a simultaneous copy opened the turn.
WITH held AS (
    SELECT id, last_position + 1 AS position FROM conversations
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3 FOR NO KEY UPDATE
), opened AS (
    INSERT INTO turns (tenant_id, id, conversation_id) SELECT $1::uuid, $4::uuid, id FROM held
    ON CONFLICT (tenant_id, id) DO NOTHING RETURNING conversation_id
), advanced AS (
    UPDATE conversations SET
        last_position = held.position,
        update_time = clock_timestamp(),
        title = CASE WHEN title = '' THEN $7 ELSE title END
    FROM held, opened WHERE tenant_id = $1 AND conversations.id = held.id AND opened.conversation_id = held.id
    RETURNING conversations.id, last_position, update_time
), asked AS (
    INSERT INTO messages (tenant_id, id, conversation_id, turn_id, position, role, text, state, create_time)
    SELECT $1::uuid, $5::uuid, id, $4::uuid, last_position, 'user', $6, 'complete', update_time FROM advanced
    RETURNING *
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.session.v1.MessageAppended', tenant_id, conversation_id, $8::bytea FROM asked
), question AS (
    SELECT * FROM asked
    UNION ALL
    SELECT * FROM messages WHERE tenant_id = $1 AND turn_id = $4::uuid AND role = 'user'
), history AS (
    SELECT *, sum(size_bytes) OVER (ORDER BY position DESC) AS bytes FROM (
        SELECT messages.* FROM question
        JOIN messages ON messages.tenant_id = $1 AND messages.conversation_id = question.conversation_id
        JOIN turns ON turns.tenant_id = $1 AND turns.id = messages.turn_id
        WHERE question.conversation_id = $3 AND turns.close_position < question.position
        ORDER BY messages.position DESC LIMIT $9
    ) AS candidates
), said AS (
    SELECT * FROM history WHERE bytes <= $10
    UNION ALL
    SELECT *, 0 FROM question
)
SELECT said.* FROM held LEFT JOIN said ON true ORDER BY position;

-- name: close_turn
-- No row: no such turn. Otherwise the answer, if there is one, beside how the turn had ended before this statement
-- (turn_state; 'open': it had not) and whether this statement ended it. Neither: a simultaneous copy did.
WITH held AS (
    SELECT conversations.id, conversations.last_position + 1 AS position, turns.state
    FROM turns JOIN conversations ON conversations.tenant_id = $1 AND conversations.id = turns.conversation_id
    WHERE turns.tenant_id = $1 AND turns.id = $3 AND conversations.user_id = $2
    FOR NO KEY UPDATE OF conversations
), closed AS (
    UPDATE turns SET state = $4, close_position = held.position
    FROM held WHERE turns.tenant_id = $1 AND turns.id = $3 AND turns.state = 'open'
    RETURNING turns.conversation_id, turns.close_position
), advanced AS (
    UPDATE conversations SET
        last_position = closed.close_position,
        update_time = CASE WHEN $6 = '' THEN update_time ELSE clock_timestamp() END
    FROM closed WHERE tenant_id = $1 AND id = closed.conversation_id
    RETURNING id, last_position, update_time
), answered AS (
    INSERT INTO messages (tenant_id, id, conversation_id, turn_id, position, role, text, state, citations,
        prompt_tokens, completion_tokens, create_time)
    SELECT $1::uuid, $5::uuid, id, $3::uuid, last_position, 'assistant', $6, $4, $7::jsonb, $8::bigint, $9::bigint,
        update_time
    FROM advanced WHERE $6 <> ''
    RETURNING *
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.session.v1.MessageAppended', tenant_id, conversation_id,
        $10::bytea || convert_to(conversation_id::text, 'UTF8')
    FROM answered
), answer AS (
    SELECT * FROM answered
    UNION ALL
    SELECT * FROM messages WHERE tenant_id = $1 AND turn_id = $3 AND role = 'assistant'
)
SELECT held.state AS turn_state, EXISTS (SELECT FROM closed) AS closed_now, answer.*
FROM held LEFT JOIN answer ON true;
