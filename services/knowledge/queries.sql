-- The statements of the knowledge service. Each change of a document wakes its watchers: pg_notify with its id.

-- name: find_document
SELECT * FROM documents WHERE tenant_id = $1 AND id = $2;

-- name: newest_documents
SELECT * FROM documents
WHERE tenant_id = $1 AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::uuid))
ORDER BY create_time DESC, id DESC LIMIT $4;

-- name: delete_document
WITH deleted AS (
    DELETE FROM documents WHERE tenant_id = $1 AND id = $2 RETURNING tenant_id, id
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentDeleted', tenant_id, id, $3 FROM deleted
)
SELECT pg_notify('knowledge', id::text) FROM deleted;

-- name: find_document_by_request
SELECT * FROM documents WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3;

-- name: find_uploaded_document
SELECT * FROM documents WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: add_document
-- The no-op update returns the row of the first request; its xmax is then set, and there is no second event.
WITH added AS (
    INSERT INTO documents (tenant_id, user_id, request_id, id, filename, size_bytes, sha256)
    VALUES ($1, $2, $3, $4, $5, $6, $7)
    ON CONFLICT (tenant_id, user_id, request_id) DO UPDATE SET request_id = EXCLUDED.request_id
    RETURNING *, xmax = 0 AS is_new
), ended AS (
    DELETE FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND id = $4
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentUploaded', tenant_id, id, $8 FROM added WHERE is_new
)
SELECT * FROM added;

-- name: begin_upload
WITH document AS (
    SELECT id, request_id, filename, size_bytes, sha256, size_bytes AS received_bytes, true AS finished
    FROM documents WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3
), upload AS (
    INSERT INTO uploads (tenant_id, user_id, request_id, id, filename, size_bytes, sha256)
    SELECT $1, $2, $3, $4, $5, $6, $7 WHERE NOT EXISTS (SELECT FROM document)
    ON CONFLICT (tenant_id, user_id, request_id) DO UPDATE SET request_id = EXCLUDED.request_id
    RETURNING id, request_id, filename, size_bytes, sha256, received_bytes, false AS finished
)
SELECT * FROM document UNION ALL SELECT * FROM upload;

-- name: find_upload
SELECT id, request_id, filename, size_bytes, sha256, received_bytes, false AS finished
FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: advance_upload
UPDATE uploads SET received_bytes = $4 + $5
WHERE tenant_id = $1 AND user_id = $2 AND id = $3 AND received_bytes = $4
RETURNING id;

-- name: drop_upload
DELETE FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: drop_uploads_older_than
-- Housekeeping for all organisations.
DELETE FROM uploads WHERE create_time < now() - make_interval(secs => $1) RETURNING tenant_id, id;

-- name: begin_indexing
WITH begun AS (
    UPDATE documents SET
        state = 'indexing', content_type = '', pages = 0, passages = 0, passages_indexed = 0
    WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'indexing') RETURNING *
), again AS (
    DELETE FROM passages USING begun WHERE passages.tenant_id = $1 AND passages.document_id = begun.id
), notified AS (
    SELECT pg_notify('knowledge', id::text) FROM begun
)
SELECT begun.* FROM begun, notified
UNION ALL
SELECT * FROM documents WHERE tenant_id = $1 AND id = $2 AND state IN ('indexed', 'failed');

-- name: announce_content
UPDATE documents SET content_type = $3, pages = $4, passages = $5
WHERE tenant_id = $1 AND id = $2 AND state = 'indexing'
RETURNING pg_notify('knowledge', id::text);

-- name: add_passages
-- Adds no passage to a document that has gone or has ended.
WITH document AS (
    UPDATE documents SET passages_indexed = least(passages, passages_indexed + jsonb_array_length($3))
    WHERE tenant_id = $1 AND id = $2 AND state = 'indexing' RETURNING tenant_id, id
), added AS (
    INSERT INTO passages (tenant_id, document_id, id, position, page, headings, text)
    SELECT document.tenant_id, document.id, new.id, new.position, new.page, new.headings, new.text
    FROM document, jsonb_to_recordset($3) AS new (id uuid, position integer, page integer, headings jsonb, text text)
    ON CONFLICT (id) DO UPDATE SET page = EXCLUDED.page, headings = EXCLUDED.headings, text = EXCLUDED.text
)
SELECT pg_notify('knowledge', id::text) FROM document;

-- name: complete_indexing
WITH completed AS (
    UPDATE documents SET state = 'indexed', passages_indexed = passages
    WHERE tenant_id = $1 AND id = $2 AND state = 'indexing' RETURNING tenant_id, id
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentIndexed', tenant_id, id, $3 FROM completed
)
SELECT pg_notify('knowledge', id::text) FROM completed;

-- name: fail_indexing
WITH failed AS (
    UPDATE documents SET state = 'failed', failure_reason = $3, failure_message = $4, passages_indexed = 0
    WHERE tenant_id = $1 AND id = $2 AND state IN ('queued', 'indexing') RETURNING tenant_id, id
), dropped AS (
    DELETE FROM passages USING failed WHERE passages.tenant_id = $1 AND passages.document_id = failed.id
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentFailed', tenant_id, id, $5 FROM failed
)
SELECT pg_notify('knowledge', id::text) FROM failed;

-- name: searchable_passages
SELECT passages.*, documents.filename
FROM unnest($2::uuid[]) WITH ORDINALITY AS hit (id, rank)
JOIN passages ON passages.id = hit.id AND passages.tenant_id = $1
JOIN documents ON documents.id = passages.document_id AND documents.tenant_id = $1 AND documents.state = 'indexed'
ORDER BY hit.rank LIMIT $3;

-- name: sample_passages
-- The ids are as good as random: they are hashes of document and position.
SELECT headings, text, position, page FROM passages WHERE tenant_id = $1 ORDER BY id LIMIT $2;
