-- A turn and the request that asked for it. The words are not here: session keeps them.
CREATE TABLE turns (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id uuid NOT NULL,
    content_digest bytea NOT NULL,       -- SHA-256 of the question and its options
    conversation_id uuid NOT NULL,
    model text NOT NULL,
    state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'completed', 'failed', 'cancelled')),
    run_id uuid NOT NULL,                -- the try that may end the turn
    message_id uuid,                     -- the saved answer, whole or interrupted
    finish_reason text,                  -- completed: why the model stopped
    failure_reason text,                 -- failed, and kept while it is tried again: the machine-readable reason
    failure_message text,
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    deadline_time timestamptz NOT NULL,  -- whoever runs it has given up by then
    end_time timestamptz,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, user_id, request_id)
);
