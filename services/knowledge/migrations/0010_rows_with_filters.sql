-- The rows of the index say now who may read them, and what else a search is narrowed by. They are in a collection of
-- their own, which is empty: as in 0002, what was indexed is indexed again, each document by the event of its upload.
WITH again AS (
    UPDATE documents SET state = 'queued' WHERE state = 'indexed' RETURNING tenant_id, id
)
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
SELECT DISTINCT ON (aggregate_id) event_type, outbox.tenant_id, aggregate_id, payload
FROM outbox JOIN again ON again.tenant_id = outbox.tenant_id AND again.id = outbox.aggregate_id
WHERE event_type = 'parley.knowledge.v1.DocumentUploaded'
ORDER BY aggregate_id, position;
