-- The statements of the session service: one per question, one per change with its event.
-- $1 is always the tenant, $2 the user.
--
-- open_turn and close_turn lock the conversation, then read from the locked row what orders the turns: its
-- last_position, a number and not a clock, and its last turn. Everything else in a statement is read from its snapshot,
-- so what committed while it waited for the lock is not seen; the row then says so, and the store runs the statement
-- again. LATERAL with OFFSET or LIMIT makes each step of a recursion one look into an index, whatever the planner
-- believes about tables that have grown since it last counted.

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
-- The branch of turn $7, or the current one. No row: no such conversation. A row without id: no message after $4;
-- without tip_turn_id: no such turn. The page ends at $5 messages or when the messages before one fill $6 bytes;
-- `found` counts up to one message more than the page may have.
WITH RECURSIVE conversation AS (
    SELECT id, coalesce($7::uuid, last_turn_id) AS turn_id FROM conversations
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3
), below AS (  -- the turn's branch from there on, and whatever forks from it
    SELECT turns.branch_id, turns.position AS from_position FROM conversation
    JOIN turns ON turns.tenant_id = $1 AND turns.id = conversation.turn_id AND turns.conversation_id = conversation.id
    UNION ALL
    SELECT forks.branch_id, forks.position FROM below CROSS JOIN LATERAL (
        SELECT branch_id, position FROM turns
        WHERE tenant_id = $1 AND fork_branch_id = below.branch_id AND fork_position >= below.from_position OFFSET 0
    ) AS forks
), tip AS (
    SELECT last.id, last.branch_id FROM below CROSS JOIN LATERAL (
        SELECT id, branch_id, position FROM turns WHERE tenant_id = $1 AND branch_id = below.branch_id
        ORDER BY position DESC LIMIT 1
    ) AS last
    ORDER BY last.position DESC LIMIT 1
), thread AS (  -- the tip's branch, and what it shares with each branch that it forks from
    SELECT branch_id, 9223372036854775807 AS to_position FROM tip
    UNION ALL
    SELECT first.fork_branch_id, first.fork_position FROM thread CROSS JOIN LATERAL (
        SELECT fork_branch_id, fork_position FROM turns WHERE tenant_id = $1 AND id = thread.branch_id LIMIT 1
    ) AS first
    WHERE first.fork_branch_id IS NOT NULL
), spans AS (  -- looked up by key, because a thread may lead through thousands of branches
    SELECT jsonb_object_agg(branch_id, to_position) AS to_position FROM thread
)
SELECT tip.id AS tip_turn_id, page.* FROM spans CROSS JOIN conversation LEFT JOIN tip ON true
LEFT JOIN LATERAL (
    SELECT *, ARRAY(
        SELECT id FROM turns
        WHERE tenant_id = $1 AND conversation_id = conversation.id AND place_id = measured.place_id ORDER BY position
    ) AS sibling_turn_ids
    FROM (
        SELECT *, sum(size_bytes) OVER (ORDER BY position) - size_bytes AS bytes_before, count(*) OVER () AS found
        FROM (
            SELECT messages.*, turn.parent_turn_id, turn.place_id FROM messages CROSS JOIN LATERAL (
                SELECT * FROM turns WHERE tenant_id = $1 AND id = messages.turn_id LIMIT 1
            ) AS turn
            WHERE messages.tenant_id = $1 AND messages.conversation_id = conversation.id AND messages.position > $4
                AND (spans.to_position ->> turn.branch_id::text)::bigint >= turn.position
            ORDER BY messages.position LIMIT $5::bigint + 1
        ) AS candidates
    ) AS measured
    WHERE bytes_before < $6 ORDER BY position LIMIT $5::bigint
) AS page ON true
ORDER BY page.position;

-- name: open_turn
-- After turn $9, or beside turn $10, or, without either, after the last one. No row: no such conversation. Otherwise
-- the history and then, as the last row, the question. A row without id: there is no such place, or, if `placed`, a
-- simultaneous copy opened the turn or another one took the place in the branch. `stale`: saved, but the history may
-- lack what committed meanwhile; for a turn that exists it is complete.
WITH RECURSIVE held AS (
    SELECT id, last_position + 1 AS position, last_turn_id, last_branch_id FROM conversations
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3 FOR NO KEY UPDATE
), named AS (
    SELECT id, parent_turn_id, conversation_id FROM turns WHERE tenant_id = $1 AND id = coalesce($9::uuid, $10::uuid)
), parent AS (
    SELECT id, branch_id, position, EXISTS (
        SELECT FROM turns AS next
        WHERE next.tenant_id = $1 AND next.conversation_id = $3 AND next.place_id = turns.id
    ) AS followed
    FROM turns
    WHERE tenant_id = $1 AND id = (SELECT CASE WHEN $9::uuid IS NULL THEN parent_turn_id ELSE id END FROM named)
), place AS (
    SELECT last_turn_id AS parent_turn_id, last_branch_id AS branch_id,
        NULL::uuid AS fork_branch_id, NULL::bigint AS fork_position
    FROM held WHERE coalesce($9::uuid, $10::uuid) IS NULL
    UNION ALL
    SELECT parent.id, CASE WHEN NOT followed THEN branch_id END,
        CASE WHEN followed THEN branch_id END, CASE WHEN followed THEN position END
    FROM named LEFT JOIN parent ON true WHERE named.conversation_id = $3
), opened AS (
    INSERT INTO turns (tenant_id, id, conversation_id, position, parent_turn_id, branch_id, fork_branch_id,
        fork_position)
    SELECT $1::uuid, $4::uuid, held.id, held.position, parent_turn_id, coalesce(branch_id, $4::uuid), fork_branch_id,
        fork_position
    FROM held, place
    ON CONFLICT DO NOTHING RETURNING *
), advanced AS (
    UPDATE conversations SET
        last_position = opened.position,
        last_turn_id = opened.id,
        last_branch_id = opened.branch_id,
        update_time = clock_timestamp(),
        title = CASE WHEN title = '' THEN $7 ELSE title END
    FROM opened WHERE conversations.tenant_id = $1 AND conversations.id = $3
    RETURNING conversations.id, last_position, update_time
), asked AS (
    INSERT INTO messages (tenant_id, id, conversation_id, turn_id, position, role, text, state, create_time)
    SELECT $1::uuid, $5::uuid, id, $4::uuid, last_position, 'user', $6, 'complete', update_time FROM advanced
    RETURNING *
), told AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.session.v1.MessageAppended', tenant_id, conversation_id, $8::bytea FROM asked
), question AS (
    SELECT asked.*, opened.parent_turn_id, opened.place_id FROM asked, opened
    UNION ALL
    SELECT messages.*, turns.parent_turn_id, turns.place_id FROM messages
    JOIN turns ON turns.tenant_id = $1 AND turns.id = messages.turn_id
    WHERE messages.tenant_id = $1 AND messages.turn_id = $4::uuid AND role = 'user'
), before AS (  -- up the branch, until as many turns had ended as messages are wanted
    SELECT turn_id AS id, parent_turn_id, place_id, position, false AS ended, 0 AS ended_so_far
    FROM question WHERE conversation_id = $3
    UNION ALL
    SELECT turn.id, turn.parent_turn_id, turn.place_id, turn.position, turn.ended, ended_so_far + turn.ended::int
    FROM before CROSS JOIN LATERAL (
        SELECT *, coalesce(close_position < (SELECT position FROM question), false) AS ended
        FROM turns WHERE tenant_id = $1 AND id = before.parent_turn_id LIMIT 1
    ) AS turn
    WHERE ended_so_far < $11
), history AS (
    SELECT *, sum(size_bytes) OVER (ORDER BY turn_position DESC, position DESC) AS bytes FROM (
        SELECT said.*, before.parent_turn_id, before.place_id, before.position AS turn_position
        FROM before CROSS JOIN LATERAL (
            SELECT * FROM messages WHERE tenant_id = $1 AND turn_id = before.id OFFSET 0
        ) AS said
        WHERE before.ended ORDER BY before.position DESC, said.position DESC LIMIT $11
    ) AS candidates
), said AS (
    SELECT * FROM history WHERE bytes <= $12
    UNION ALL
    SELECT *, position, 0 FROM question
)
SELECT said.*,
    ARRAY(
        SELECT id FROM turns
        WHERE tenant_id = $1 AND conversation_id = said.conversation_id AND place_id = said.place_id ORDER BY position
    ) || ARRAY(SELECT id FROM opened WHERE id = said.turn_id) AS sibling_turn_ids,
    EXISTS (SELECT FROM place) AS placed,
    EXISTS (SELECT FROM opened) AND held.position <> (
        SELECT last_position + 1 FROM conversations WHERE tenant_id = $1 AND id = $3
    ) AS stale
FROM held LEFT JOIN said ON true ORDER BY said.turn_position, said.position;

-- name: close_turn
-- No row: no such turn. Otherwise the answer, if there is one, beside how the turn had ended before this statement
-- (turn_state; 'open': it had not) and whether this statement ended it. Neither: a simultaneous copy did.
WITH held AS (
    SELECT conversations.id, conversations.last_position + 1 AS position, turns.state, turns.parent_turn_id,
        turns.place_id
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
SELECT held.state AS turn_state, EXISTS (SELECT FROM closed) AS closed_now, held.parent_turn_id, answer.*,
    ARRAY(
        SELECT id FROM turns WHERE tenant_id = $1 AND conversation_id = held.id AND place_id = held.place_id
        ORDER BY position
    ) AS sibling_turn_ids
FROM held LEFT JOIN answer ON true;
