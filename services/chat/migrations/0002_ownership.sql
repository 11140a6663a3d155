-- Replicas of chat, and until when the others believe that each is alive.
CREATE TABLE replicas (
    id uuid PRIMARY KEY,
    lease_until timestamptz NOT NULL
);

-- Nobody can go on with turns that began before it was kept who runs them.
UPDATE turns SET state = 'failed', end_time = now(), failure_reason = 'SERVICE_UNAVAILABLE',
    failure_message = 'The service was renewed. Ask again.'
WHERE state = 'running';

ALTER TABLE turns
    ADD COLUMN replica_id uuid,              -- who runs it
    ADD COLUMN runs integer NOT NULL DEFAULT 1,  -- how often it was begun or taken over
    ADD COLUMN run_time timestamptz NOT NULL DEFAULT now(),  -- when that last happened
    ADD COLUMN log_incarnation text,         -- the life of Valkey that has the whole log; NULL: the end may be missing
    ADD COLUMN question jsonb,               -- while it runs: what another replica needs to go on
    ADD COLUMN token text,                   -- while it runs: the asker's access token, for peers
    ADD COLUMN cancel_request_time timestamptz,
    ADD COLUMN cancellation_cause text,
    ADD COLUMN freed_after_ms bigint,
    ADD COLUMN first_text_time timestamptz,
    ADD COLUMN rating text CHECK (rating IN ('good', 'bad')),
    ADD COLUMN rating_reason text NOT NULL DEFAULT '',
    ADD CONSTRAINT turns_ended_hold_no_token CHECK (state = 'running' OR (token IS NULL AND question IS NULL));

CREATE INDEX turns_running ON turns (tenant_id, user_id) WHERE state = 'running';
