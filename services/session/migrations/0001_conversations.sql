-- Conversations, the turns in them, and the messages of those turns. Every key begins with the tenant, so that no
-- reference can lead from one organisation into another.
-- Lock order of every change: the conversation first, then its turn; deletion cascades the same way.

CREATE TABLE conversations (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    title text NOT NULL,               -- '' until the first question
    last_position bigint NOT NULL DEFAULT 0,  -- of the last event of a turn in it: a question, or a turn's end
    request_id uuid NOT NULL,
    request_digest bytea NOT NULL,     -- SHA-256 of the content first asked for: tells a repeat from a reuse
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, user_id, request_id)
);
CREATE INDEX conversations_recent ON conversations (tenant_id, user_id, update_time, id);

CREATE TABLE turns (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,                  -- made by chat
    conversation_id uuid NOT NULL,
    state text NOT NULL DEFAULT 'open' CONSTRAINT turn_state CHECK (state IN ('open', 'complete', 'interrupted')),
    close_position bigint,             -- where in the conversation it ended; the answer, if there is one, stands there
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, conversation_id) REFERENCES conversations ON DELETE CASCADE,
    CONSTRAINT closed_turn_has_a_place CHECK ((state = 'open') = (close_position IS NULL))
);
CREATE INDEX turns_of_conversation ON turns (tenant_id, conversation_id);

CREATE TABLE messages (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    conversation_id uuid NOT NULL,
    turn_id uuid NOT NULL,
    position bigint NOT NULL,          -- order in the conversation, given out under the conversation's row lock
    role text NOT NULL CONSTRAINT message_role CHECK (role IN ('user', 'assistant')),
    text text NOT NULL,
    state text NOT NULL CONSTRAINT message_state CHECK (state IN ('complete', 'interrupted')),
    citations jsonb NOT NULL DEFAULT '[]',
    prompt_tokens bigint,              -- absent for questions
    completion_tokens bigint,
    create_time timestamptz NOT NULL,
    size_bytes integer GENERATED ALWAYS AS (octet_length(text) + octet_length(citations::text)) STORED,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, conversation_id, position),
    UNIQUE (tenant_id, turn_id, role),
    FOREIGN KEY (tenant_id, turn_id) REFERENCES turns ON DELETE CASCADE
);
