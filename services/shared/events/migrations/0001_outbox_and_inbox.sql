-- Facts that this service publishes. A row is written by the statement that makes the fact true.
-- Rows stay after publication: JetStream can be filled again from here.
CREATE TABLE outbox (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    event_type text NOT NULL,      -- full proto name, e.g. parley.session.v1.MessageAppended
    tenant_id uuid NOT NULL,
    aggregate_id uuid NOT NULL,    -- what the fact is about; order is kept per aggregate
    payload bytea NOT NULL,        -- the event message, serialised
    create_time timestamptz NOT NULL DEFAULT now(),
    publish_time timestamptz
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE publish_time IS NULL;

-- Wakes the relay at the commit of the statement that wrote the rows.
CREATE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify(TG_TABLE_SCHEMA, 'outbox');
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_written AFTER INSERT ON outbox FOR EACH STATEMENT EXECUTE FUNCTION notify_outbox();

-- Events that took effect here. A consumer inserts the row in the statement that makes the effect.
CREATE TABLE inbox (
    event_id uuid PRIMARY KEY,
    receive_time timestamptz NOT NULL DEFAULT now()
);
