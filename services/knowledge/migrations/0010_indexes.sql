-- The indexes that there are, each a collection of its own in Milvus: passages_<id>. Searches ask the active one; another
-- one may be building beside it, and reaches its place when it holds every document.
CREATE TABLE indexes (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    state text NOT NULL CHECK (state IN ('building', 'active', 'retired')),
    embedding_model text NOT NULL,
    dimensions integer NOT NULL,
    from_originals boolean NOT NULL DEFAULT false,  -- documents are cut anew for it
    request_id uuid UNIQUE,        -- of the rebuild; the first index has none
    create_time timestamptz NOT NULL DEFAULT now(),
    retire_time timestamptz
);
CREATE UNIQUE INDEX indexes_in_use ON indexes (state) WHERE state <> 'retired';

-- The last index that holds its passages. What was indexed before there was this table is in a collection of another
-- layout: it is brought over from the passages in the record.
ALTER TABLE documents ADD COLUMN index_id integer NOT NULL DEFAULT 0;
CREATE INDEX documents_by_index ON documents (index_id, id) WHERE state = 'indexed';

-- A function, for each of its statements sees what was committed before it: a document that ends being indexed holds the
-- lock on the active index (complete_indexing), and is looked at once it has ended.
CREATE FUNCTION switch_index(building integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM indexes WHERE state = 'active' FOR UPDATE;
    IF EXISTS (SELECT FROM documents WHERE state = 'indexed' AND index_id < building)
        OR NOT EXISTS (SELECT FROM indexes WHERE id = building AND state = 'building')
    THEN
        RETURN false;
    END IF;
    UPDATE indexes SET state = 'retired', retire_time = now() WHERE state = 'active';
    UPDATE indexes SET state = 'active' WHERE id = building;
    PERFORM pg_notify('knowledge', 'indexes');
    RETURN true;
END $$;

-- Counts anew what an organisation has; true if the count was wrong. Whoever adds or drops a document meanwhile waits for
-- the lock, and what was committed before it is seen by the statement after it.
CREATE FUNCTION recount_usage(tenant uuid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    counted record;
BEGIN
    INSERT INTO usage (tenant_id, documents, bytes) VALUES (tenant, 0, 0) ON CONFLICT DO NOTHING;
    PERFORM FROM usage WHERE tenant_id = tenant FOR UPDATE;
    SELECT count(*) AS documents, coalesce(sum(size_bytes), 0) AS bytes INTO counted
    FROM (
        SELECT size_bytes FROM documents WHERE tenant_id = tenant
        UNION ALL SELECT size_bytes FROM uploads WHERE tenant_id = tenant
    ) AS stored;
    UPDATE usage SET documents = counted.documents, bytes = counted.bytes
    WHERE tenant_id = tenant AND (usage.documents, usage.bytes) <> (counted.documents, counted.bytes);
    RETURN FOUND;
END $$;
