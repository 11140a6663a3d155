-- The relay is woken only where it may sleep: while rows of earlier transactions wait, it looks again by itself. Each
-- notification makes commits wait for each other and wakes every replica. A relay that found nothing just before an
-- open transaction counted on it is not woken; it looks once a second all the same.
CREATE OR REPLACE FUNCTION notify_outbox() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM outbox WHERE publish_time IS NULL AND create_time < now() ORDER BY position DESC LIMIT 1;
    IF NOT FOUND THEN
        PERFORM pg_notify(TG_TABLE_SCHEMA, 'outbox');
    END IF;
    RETURN NULL;
END $$;
