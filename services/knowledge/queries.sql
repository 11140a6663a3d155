-- The statements of the knowledge service. Each change of a document wakes its watchers: pg_notify with its id.

-- name: find_document
-- For indexing, which nobody sees.
SELECT * FROM documents WHERE tenant_id = $1 AND id = $2;

-- name: find_visible_document
SELECT * FROM documents WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3;

-- name: newest_documents
SELECT * FROM documents
WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2)
AND ($3::timestamptz IS NULL OR (create_time, id) < ($3, $4::uuid))
AND ($6::text IS NULL OR collection COLLATE "C" = $6)
ORDER BY create_time DESC, id DESC LIMIT $5;

-- name: collections
SELECT collection COLLATE "C" AS name, count(*) AS documents FROM documents
WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2)
AND ($3::text IS NULL OR collection COLLATE "C" > $3)
GROUP BY 1 ORDER BY 1 LIMIT $4;

-- name: update_document
WITH updated AS (
    UPDATE documents SET
        collection = coalesce($4, collection),
        visibility = coalesce($5, visibility),
        sole = sole AND visibility = coalesce($5, visibility)
    WHERE tenant_id = $1 AND user_id = $2 AND id = $3 RETURNING *
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentUpdated', tenant_id, id, $6 FROM updated
), notified AS (
    SELECT pg_notify('knowledge', id::text) FROM updated
)
SELECT updated.* FROM updated, notified;

-- name: delete_document
WITH deleted AS (
    DELETE FROM documents WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3
    RETURNING tenant_id, id, size_bytes
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentDeleted', tenant_id, id, $4 FROM deleted
), counted AS (
    UPDATE usage SET documents = usage.documents - 1, bytes = usage.bytes - deleted.size_bytes
    FROM deleted WHERE usage.tenant_id = deleted.tenant_id
)
SELECT pg_notify('knowledge', id::text) FROM deleted;

-- name: find_uploaded_document
SELECT * FROM documents WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: expect_document
-- What an upload would meet before its bytes come: its own first try, a document of its content, an organisation that
-- is full.
WITH known AS (
    SELECT user_id = $2 AND request_id = $3 AS is_first, documents.* FROM documents
    WHERE tenant_id = $1 AND (
        (user_id = $2 AND request_id = $3)
        OR (NOT $5 AND sha256 = $4 AND state <> 'failed' AND (visibility = 'organisation' OR user_id = $2))
    )
    ORDER BY is_first DESC, create_time LIMIT 1
), quota AS (
    SELECT EXISTS (
        SELECT FROM usage WHERE tenant_id = $1 AND (documents >= $7::bigint OR bytes + $6::bigint > $8::bigint)
    ) OR $7 < 1 OR $6 > $8 AS is_full
)
SELECT quota.is_full, known.* FROM quota LEFT JOIN known ON true;

-- name: add_document
-- No row when the organisation is full. Of two that add the same at once, the second one breaks a unique index and is
-- sent again. An upload in chunks was counted when it began.
WITH known AS (
    SELECT user_id = $2 AND request_id = $3 AS is_first, documents.* FROM documents
    WHERE tenant_id = $1 AND (
        (user_id = $2 AND request_id = $3)
        OR (NOT $10 AND sha256 = $7 AND state <> 'failed' AND (visibility = 'organisation' OR user_id = $2))
    )
    ORDER BY is_first DESC, create_time LIMIT 1
), ended AS (
    DELETE FROM uploads
    WHERE tenant_id = $1 AND user_id = $2 AND id = $4 AND NOT EXISTS (SELECT FROM known) RETURNING tenant_id
), counted AS (
    INSERT INTO usage (tenant_id, documents, bytes)
    SELECT $1::uuid, 1, $6::bigint
    WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM ended) AND $11::bigint >= 1 AND $6 <= $12::bigint
    ON CONFLICT (tenant_id) DO UPDATE SET documents = usage.documents + 1, bytes = usage.bytes + EXCLUDED.bytes
    WHERE usage.documents < $11 AND usage.bytes + EXCLUDED.bytes <= $12::bigint
    RETURNING tenant_id
), added AS (
    INSERT INTO documents
        (tenant_id, user_id, request_id, id, filename, size_bytes, sha256, collection, visibility, sole, source_url)
    SELECT place.tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, NOT $10, $14
    FROM (SELECT tenant_id FROM ended UNION ALL SELECT tenant_id FROM counted) AS place
    RETURNING true AS is_first, documents.*
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.DocumentUploaded', tenant_id, id, $13 FROM added
)
SELECT * FROM known UNION ALL SELECT * FROM added;

-- name: begin_upload
-- As add_document.
WITH known AS (
    SELECT user_id = $2 AND request_id = $3 AS is_first, documents.* FROM documents
    WHERE tenant_id = $1 AND (
        (user_id = $2 AND request_id = $3)
        OR (NOT $10 AND sha256 = $7 AND state <> 'failed' AND (visibility = 'organisation' OR user_id = $2))
    )
    ORDER BY is_first DESC, create_time LIMIT 1
), begun AS (
    SELECT * FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3
), counted AS (
    INSERT INTO usage (tenant_id, documents, bytes)
    SELECT $1::uuid, 1, $6::bigint
    WHERE NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM begun) AND $11::bigint >= 1 AND $6 <= $12::bigint
    ON CONFLICT (tenant_id) DO UPDATE SET documents = usage.documents + 1, bytes = usage.bytes + EXCLUDED.bytes
    WHERE usage.documents < $11 AND usage.bytes + EXCLUDED.bytes <= $12::bigint
    RETURNING tenant_id
), added AS (
    INSERT INTO uploads
        (tenant_id, user_id, request_id, id, filename, size_bytes, sha256, collection, visibility, allow_duplicate)
    SELECT tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM counted
    RETURNING *
)
SELECT is_first, id, request_id, filename, size_bytes, sha256, collection, visibility, false AS allow_duplicate,
    size_bytes AS received_bytes, true AS finished
FROM known
UNION ALL
SELECT true, id, request_id, filename, size_bytes, sha256, collection, visibility, allow_duplicate,
    received_bytes, false
FROM (SELECT * FROM begun UNION ALL SELECT * FROM added) AS upload
WHERE NOT EXISTS (SELECT FROM known WHERE is_first)
ORDER BY finished LIMIT 1;

-- name: find_upload
SELECT *, false AS finished FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND id = $3;

-- name: advance_upload
UPDATE uploads SET received_bytes = $4 + $5
WHERE tenant_id = $1 AND user_id = $2 AND id = $3 AND received_bytes = $4
RETURNING id;

-- name: drop_upload
WITH dropped AS (
    DELETE FROM uploads WHERE tenant_id = $1 AND user_id = $2 AND id = $3 RETURNING tenant_id, size_bytes
)
UPDATE usage SET documents = usage.documents - 1, bytes = usage.bytes - dropped.size_bytes
FROM dropped WHERE usage.tenant_id = dropped.tenant_id;

-- name: drop_uploads_older_than
-- Housekeeping for all organisations.
WITH dropped AS (
    DELETE FROM uploads WHERE create_time < now() - make_interval(secs => $1) RETURNING tenant_id, size_bytes
), gone AS (
    SELECT tenant_id, count(*) AS documents, sum(size_bytes) AS bytes FROM dropped GROUP BY tenant_id
)
UPDATE usage SET documents = usage.documents - gone.documents, bytes = usage.bytes - gone.bytes
FROM gone WHERE usage.tenant_id = gone.tenant_id;

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
    UPDATE documents SET state = 'failed', failure_reason = $3, failure_message = $4, passages_indexed = 0, sole = false
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
    AND (documents.visibility = 'organisation' OR documents.user_id = $4)
ORDER BY hit.rank LIMIT $3;

-- name: sample_passages
-- The ids are as good as random: they are hashes of document and position. How rare a term is must tell nobody what
-- stands in a colleague's private document.
SELECT passages.headings, passages.text, passages.position, passages.page FROM passages
JOIN documents ON documents.id = passages.document_id AND documents.tenant_id = $1
    AND documents.visibility = 'organisation'
WHERE passages.tenant_id = $1 ORDER BY passages.id LIMIT $2;

-- name: find_faq
SELECT * FROM faqs WHERE tenant_id = $1 AND id = $2;

-- name: newest_faqs
SELECT * FROM faqs
WHERE tenant_id = $1 AND ($2::timestamptz IS NULL OR (create_time, id) < ($2, $3::uuid))
ORDER BY create_time DESC, id DESC LIMIT $4;

-- name: add_faq
-- No row when the organisation has no room. Of two that add the same at once, the second one breaks a unique index and
-- is sent again.
WITH known AS (
    SELECT user_id = $2 AND request_id = $3 AS is_first, faqs.* FROM faqs
    WHERE tenant_id = $1 AND ((user_id = $2 AND request_id = $3) OR question_sha256 = $7)
    ORDER BY is_first DESC LIMIT 1
), counted AS (
    INSERT INTO faq_sets (tenant_id, faqs, revision)
    SELECT $1::uuid, 1, 1 WHERE NOT EXISTS (SELECT FROM known) AND $10::bigint >= 1
    ON CONFLICT (tenant_id) DO UPDATE SET faqs = faq_sets.faqs + 1, revision = faq_sets.revision + 1
    WHERE faq_sets.faqs < $10
    RETURNING tenant_id, revision
), added AS (
    INSERT INTO faqs (tenant_id, user_id, request_id, request_sha256, id, question, question_sha256, alternatives,
        answer, revision)
    SELECT tenant_id, $2, $3, $4, $5, $6, $7, $8, $9, revision FROM counted
    RETURNING true AS is_first, faqs.*
), learnt AS (
    INSERT INTO faq_vectors (tenant_id, faq_id, model, vectors)
    SELECT tenant_id, id, $11, $12 FROM added WHERE $12::bytea IS NOT NULL
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.FaqChanged', tenant_id, id, $13 FROM added
)
SELECT * FROM known UNION ALL SELECT * FROM added;

-- name: find_faq_by_question
SELECT id FROM faqs WHERE tenant_id = $1 AND question_sha256 = $2;

-- name: change_faq
-- No row when the FAQ is no longer of the revision that was read. Vectors of phrasings that are no more go.
WITH counted AS (
    UPDATE faq_sets SET revision = revision + 1 WHERE tenant_id = $1 RETURNING revision
), changed AS (
    UPDATE faqs SET question = $4, question_sha256 = $5, alternatives = $6, answer = $7, revision = counted.revision,
        update_time = now()
    FROM counted WHERE faqs.tenant_id = $1 AND faqs.id = $2 AND faqs.revision = $3
    RETURNING faqs.*
), dropped AS (
    DELETE FROM faq_vectors USING changed
    WHERE faq_vectors.tenant_id = $1 AND faq_vectors.faq_id = changed.id
    AND $8::boolean AND ($10::bytea IS NULL OR faq_vectors.model <> $9)
), learnt AS (
    INSERT INTO faq_vectors (tenant_id, faq_id, model, vectors)
    SELECT tenant_id, id, $9, $10 FROM changed WHERE $8 AND $10 IS NOT NULL
    ON CONFLICT (faq_id, model) DO UPDATE SET vectors = EXCLUDED.vectors
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.FaqChanged', tenant_id, id, $11 FROM changed
)
SELECT * FROM changed;

-- name: delete_faq
-- The set's row is held first, as by every change: two that wait for each other would be a deadlock.
WITH held AS (
    SELECT tenant_id FROM faq_sets WHERE tenant_id = $1 FOR UPDATE
), deleted AS (
    DELETE FROM faqs USING held WHERE faqs.tenant_id = $1 AND faqs.id = $2 RETURNING faqs.tenant_id, faqs.id
), counted AS (
    UPDATE faq_sets SET faqs = faq_sets.faqs - 1, revision = faq_sets.revision + 1
    FROM deleted WHERE faq_sets.tenant_id = deleted.tenant_id
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.FaqDeleted', tenant_id, id, $3 FROM deleted
)
SELECT id FROM deleted;

-- name: faqs_since
-- One snapshot: the set, and what has changed since a revision. No row for an organisation that never had a FAQ.
SELECT faq_sets.faqs AS total, faq_sets.revision AS newest, faqs.id, faqs.question, faqs.alternatives,
    faq_vectors.vectors
FROM faq_sets
LEFT JOIN faqs ON faqs.tenant_id = $1 AND faqs.revision > $2
LEFT JOIN faq_vectors
    ON faq_vectors.tenant_id = $1 AND faq_vectors.faq_id = faqs.id AND faq_vectors.model = $3
WHERE faq_sets.tenant_id = $1;

-- name: faqs_without_vectors
-- Housekeeping for all organisations.
SELECT * FROM faqs
WHERE NOT EXISTS (SELECT FROM faq_vectors WHERE faq_vectors.faq_id = faqs.id AND faq_vectors.model = $1)
LIMIT $2;

-- name: learn_faq
WITH counted AS (
    UPDATE faq_sets SET revision = revision + 1 WHERE tenant_id = $1 RETURNING revision
), learnt AS (
    UPDATE faqs SET revision = counted.revision
    FROM counted WHERE faqs.tenant_id = $1 AND faqs.id = $2 AND faqs.revision = $3
    RETURNING faqs.tenant_id, faqs.id
)
INSERT INTO faq_vectors (tenant_id, faq_id, model, vectors)
SELECT tenant_id, id, $4, $5 FROM learnt
ON CONFLICT (faq_id, model) DO UPDATE SET vectors = EXCLUDED.vectors;
-- name: add_crawl
-- `refused` when the organisation has too many. Of two with one request_id at once, the second one breaks a unique index
-- and is sent again.
WITH known AS (
    SELECT id FROM crawls WHERE tenant_id = $1 AND user_id = $2 AND request_id = $3
), counted AS (
    SELECT count(*) FILTER (WHERE state IN ('queued', 'running')) >= $14::bigint AS busy, count(*) >= $15::bigint AS full
    FROM crawls WHERE tenant_id = $1
), added AS (
    INSERT INTO crawls
        (tenant_id, user_id, request_id, id, url, collection, visibility, max_depth, max_pages, max_bytes, max_seconds,
         sites)
    SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12 FROM counted
    WHERE NOT busy AND NOT counted.full AND NOT EXISTS (SELECT FROM known)
    RETURNING tenant_id, id, url
), start AS (
    INSERT INTO crawl_pages (tenant_id, crawl_id, url, kind, depth, hops)
    SELECT tenant_id, id, url, 'start', 0, 0 FROM added
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.CrawlRequested', tenant_id, id, $13 FROM added
)
SELECT coalesce((SELECT id FROM known), (SELECT id FROM added)) AS id,
    CASE WHEN counted.full THEN 'in all' ELSE 'unfinished' END AS refused
FROM counted;

-- name: find_visible_crawl
SELECT crawls.*, counts.* FROM crawls, LATERAL (
    SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'indexing') AS indexing,
        count(*) FILTER (WHERE state = 'indexed') AS indexed, count(*) FILTER (WHERE state = 'unchanged') AS unchanged,
        count(*) FILTER (WHERE state = 'skipped') AS skipped, count(*) FILTER (WHERE state = 'failed') AS failed
    FROM crawl_pages WHERE crawl_pages.crawl_id = crawls.id
) AS counts
WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3;

-- name: newest_crawls
SELECT crawls.*, counts.* FROM (
    SELECT * FROM crawls
    WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2)
    AND ($3::timestamptz IS NULL OR (create_time, id) < ($3, $4::uuid))
    ORDER BY create_time DESC, id DESC LIMIT $5
) AS crawls, LATERAL (
    SELECT count(*) FILTER (WHERE state = 'waiting') AS waiting, count(*) FILTER (WHERE state = 'indexing') AS indexing,
        count(*) FILTER (WHERE state = 'indexed') AS indexed, count(*) FILTER (WHERE state = 'unchanged') AS unchanged,
        count(*) FILTER (WHERE state = 'skipped') AS skipped, count(*) FILTER (WHERE state = 'failed') AS failed
    FROM crawl_pages WHERE crawl_pages.crawl_id = crawls.id
) AS counts
ORDER BY create_time DESC, id DESC;

-- name: start_crawl_again
-- Pages that were gone are forgotten: they would take the places of others. Beyond a smaller limit of pages than before
-- what is known stays as it is.
WITH busy AS (
    SELECT count(*) >= $5::bigint AS refused FROM crawls WHERE tenant_id = $1 AND state IN ('queued', 'running')
), started AS (
    UPDATE crawls SET state = 'queued', slice = slice + 1, bytes = 0, limit_reached = '', failure_reason = NULL,
        failure_message = NULL, start_time = NULL, end_time = NULL, max_depth = $7, max_pages = $8, max_bytes = $9,
        max_seconds = $10
    FROM busy
    WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3 AND slice = $4
    AND state IN ('done', 'stopped', 'failed') AND NOT refused
    AND NOT EXISTS (SELECT FROM crawl_pages WHERE crawl_id = $3 AND crawl_pages.state = 'indexing')
    RETURNING tenant_id, id
), forgotten AS (
    DELETE FROM crawl_pages USING started WHERE crawl_pages.tenant_id = $1 AND crawl_id = started.id AND is_gone
    AND kind <> 'start'
), waiting AS (
    UPDATE crawl_pages SET state = 'waiting', tries = 0, reason = NULL, message = '' FROM started
    WHERE crawl_pages.tenant_id = $1 AND crawl_id = started.id AND position IN (
        SELECT position FROM crawl_pages WHERE crawl_id = $3 AND NOT (is_gone AND kind <> 'start') AND depth <= $7
        ORDER BY depth, position LIMIT $8
    )
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.knowledge.v1.CrawlRequested', tenant_id, id, $6 FROM started
), notified AS (
    SELECT pg_notify('knowledge', id::text) FROM started
)
SELECT refused, (SELECT id FROM started) AS id, (SELECT count(*) FROM notified) FROM busy;

-- name: stop_crawl
WITH stopped AS (
    UPDATE crawls SET state = 'stopped', end_time = now()
    WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3
    AND state IN ('queued', 'running', 'indexing') RETURNING id
), skipped AS (
    UPDATE crawl_pages SET state = 'skipped', message = 'Not visited: the crawl was stopped.' FROM stopped
    WHERE crawl_pages.tenant_id = $1 AND crawl_id = stopped.id AND crawl_pages.state = 'waiting'
)
SELECT pg_notify('knowledge', id::text) FROM stopped;

-- name: delete_crawl
WITH deleted AS (
    DELETE FROM crawls WHERE tenant_id = $1 AND (visibility = 'organisation' OR user_id = $2) AND id = $3 RETURNING id
)
SELECT pg_notify('knowledge', id::text) FROM deleted;

-- name: crawl_pages
SELECT crawl_pages.* FROM crawl_pages
JOIN crawls ON crawls.id = crawl_id AND (visibility = 'organisation' OR user_id = $2)
WHERE crawls.tenant_id = $1 AND crawl_id = $3 AND ($4::bigint IS NULL OR position > $4)
AND ($6::text IS NULL OR crawl_pages.state = $6)
ORDER BY position LIMIT $5;

-- name: documents_of_crawl
-- Not those that their owner has made private meanwhile.
SELECT documents.id FROM crawl_pages
JOIN crawls ON crawls.id = crawl_id
JOIN documents ON documents.id IN (document_id, next_document_id) AND documents.tenant_id = $1
    AND (documents.visibility = 'organisation' OR documents.user_id = $2)
WHERE crawls.tenant_id = $1 AND crawl_id = $3 LIMIT $4;

-- name: begin_slice
UPDATE crawls SET state = 'running', start_time = coalesce(start_time, now())
WHERE tenant_id = $1 AND id = $2 AND slice = $3 AND state IN ('queued', 'running') RETURNING *;

-- name: waiting_pages
SELECT crawl_pages.* FROM crawl_pages JOIN crawls ON crawls.id = crawl_id
WHERE crawls.tenant_id = $1 AND crawl_id = $2 AND slice = $3 AND crawls.state = 'running'
AND crawl_pages.state = 'waiting'
ORDER BY tries, depth, position LIMIT $4;

-- name: next_slice
WITH next AS (
    UPDATE crawls SET slice = slice + 1
    WHERE tenant_id = $1 AND id = $2 AND slice = $3 AND state = 'running' RETURNING tenant_id, id
)
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
SELECT 'parley.knowledge.v1.CrawlRequested', tenant_id, id, $4 FROM next;

-- name: add_crawl_pages
WITH crawl AS (
    SELECT tenant_id, id, max_pages FROM crawls WHERE tenant_id = $1 AND id = $2
), room AS (
    SELECT CASE WHEN $4 = 'sitemap' THEN $7::bigint - count(*) FILTER (WHERE kind = 'sitemap')
        ELSE max(max_pages) - count(*) FILTER (WHERE kind <> 'sitemap') END AS pages
    FROM crawl LEFT JOIN crawl_pages ON crawl_id = crawl.id
), new AS (
    SELECT url, place FROM unnest($3::text[]) WITH ORDINALITY AS named (url, place)
    WHERE NOT EXISTS (SELECT FROM crawl_pages WHERE crawl_id = $2 AND crawl_pages.url = named.url)
), added AS (
    INSERT INTO crawl_pages (tenant_id, crawl_id, url, kind, depth, hops)
    SELECT crawl.tenant_id, crawl.id, new.url, $4, $5, $6 FROM crawl, new
    ORDER BY place LIMIT (SELECT greatest(pages, 0) FROM room)
    ON CONFLICT (crawl_id, url) DO NOTHING
)
UPDATE crawls SET limit_reached = 'pages'
WHERE tenant_id = $1 AND id = $2 AND limit_reached = '' AND (SELECT count(*) FROM new) > (SELECT pages FROM room);

-- name: find_crawl_page
SELECT * FROM crawl_pages WHERE tenant_id = $1 AND crawl_id = $2 AND url = $3;

-- name: adopt_site
UPDATE crawls SET sites = array_append(sites, $3)
WHERE tenant_id = $1 AND id = $2 AND NOT $3 = ANY (sites);

-- name: finish_crawl_page
-- What may be another time otherwise ($14) is asked three times, later than all that was asked less often.
WITH finished AS (
    UPDATE crawl_pages SET state = CASE WHEN $14 AND tries < 2 THEN 'waiting' ELSE $4 END, tries = tries + 1,
        reason = $5, message = $6, is_gone = $7, next_document_id = $8,
        document_id = CASE WHEN $9 THEN document_id END,
        etag = CASE WHEN $4 = 'failed' AND $9 THEN etag ELSE $10 END,
        last_modified = CASE WHEN $4 = 'failed' AND $9 THEN last_modified ELSE $11 END,
        sha256 = CASE WHEN $4 = 'failed' AND $9 THEN sha256 ELSE $12 END,
        visit_time = now()
    WHERE tenant_id = $1 AND crawl_id = $2 AND position = $3 AND state = 'waiting' RETURNING crawl_id
), counted AS (
    UPDATE crawls SET bytes = bytes + $13 FROM finished WHERE tenant_id = $1 AND id = finished.crawl_id
)
SELECT pg_notify('knowledge', crawl_id::text) FROM finished;

-- name: end_crawl
-- A crawl of which nothing could be read failed, for the reason that its first page has.
WITH broken AS (
    SELECT reason, message FROM crawl_pages
    WHERE tenant_id = $1 AND crawl_id = $2 AND reason IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM crawl_pages
        WHERE crawl_id = $2 AND (state IN ('indexing', 'indexed', 'unchanged') OR reason = 'DOCUMENT_DUPLICATE')
    )
    ORDER BY position LIMIT 1
), cause AS (
    SELECT coalesce($5, (SELECT reason FROM broken)) AS reason,
        CASE WHEN $5::text IS NULL THEN (SELECT message FROM broken) ELSE $6::text END AS message
), ended AS (
    UPDATE crawls SET state = CASE WHEN cause.reason IS NULL THEN 'indexing' ELSE 'failed' END, end_time = now(),
        failure_reason = cause.reason, failure_message = cause.message,
        limit_reached = CASE WHEN $4 = '' THEN limit_reached ELSE $4 END
    FROM cause WHERE tenant_id = $1 AND id = $2 AND slice = $3 AND state = 'running' RETURNING id
), skipped AS (
    UPDATE crawl_pages SET state = 'skipped', message = 'Not visited: the crawl ended before.' FROM ended
    WHERE crawl_pages.tenant_id = $1 AND crawl_id = ended.id AND crawl_pages.state = 'waiting'
)
SELECT pg_notify('knowledge', id::text) FROM ended;

-- name: complete_crawl
WITH completed AS (
    UPDATE crawls SET state = 'done', end_time = now()
    WHERE tenant_id = $1 AND id = $2 AND state = 'indexing'
    AND NOT EXISTS (SELECT FROM crawl_pages WHERE crawl_id = $2 AND crawl_pages.state = 'indexing') RETURNING id
)
SELECT pg_notify('knowledge', id::text) FROM completed;

-- name: find_page_of_document
SELECT * FROM crawl_pages WHERE tenant_id = $1 AND next_document_id = $2;

-- name: find_crawl
-- For the work on it, which nobody sees.
SELECT * FROM crawls WHERE tenant_id = $1 AND id = $2;

-- name: replace_page_document
WITH replaced AS (
    UPDATE crawl_pages SET document_id = $4, next_document_id = NULL,
        state = CASE WHEN state = 'indexing' THEN 'indexed' ELSE state END
    WHERE tenant_id = $1 AND crawl_id = $2 AND position = $3 AND next_document_id = $4 RETURNING crawl_id
)
SELECT pg_notify('knowledge', crawl_id::text) FROM replaced;

-- name: fail_page_document
WITH failed AS (
    UPDATE crawl_pages SET next_document_id = NULL, state = 'failed', reason = $5, message = $6, etag = '',
        last_modified = '', sha256 = ''
    WHERE tenant_id = $1 AND crawl_id = $2 AND position = $3 AND next_document_id = $4 RETURNING crawl_id
)
SELECT pg_notify('knowledge', crawl_id::text) FROM failed;

-- name: forget_page_document
WITH forgotten AS (
    UPDATE crawl_pages SET etag = '', last_modified = '', sha256 = '',
        document_id = CASE WHEN document_id = $2 THEN NULL ELSE document_id END,
        next_document_id = CASE WHEN next_document_id = $2 THEN NULL ELSE next_document_id END,
        message = CASE WHEN state = 'waiting' THEN '' ELSE 'Its document was deleted.' END,
        state = CASE WHEN state = 'waiting' OR (state = 'indexing' AND next_document_id <> $2) THEN state
            ELSE 'skipped' END
    WHERE tenant_id = $1 AND $2 IN (document_id, next_document_id) RETURNING crawl_id
), crawl AS (
    SELECT crawls.* FROM crawls, forgotten WHERE tenant_id = $1 AND id = forgotten.crawl_id
), notified AS (
    SELECT pg_notify('knowledge', id::text) FROM crawl
)
SELECT crawl.* FROM crawl, notified;
