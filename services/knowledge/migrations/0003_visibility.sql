ALTER TABLE documents
    ADD COLUMN collection text NOT NULL DEFAULT '',
    ADD COLUMN visibility text NOT NULL DEFAULT 'organisation' CHECK (visibility IN ('private', 'organisation')),
    -- No other document of its content stood in the way when it came, and its visibility has not changed since.
    ADD COLUMN sole boolean NOT NULL DEFAULT false;
CREATE INDEX documents_by_content ON documents (tenant_id, sha256);
CREATE INDEX documents_by_collection ON documents (tenant_id, collection COLLATE "C", create_time DESC, id DESC);
-- Of two uploads of one content at the same time, one: among what everybody sees, and among what one user sees.
CREATE UNIQUE INDEX documents_sole ON documents (tenant_id, sha256) WHERE sole AND visibility = 'organisation';
CREATE UNIQUE INDEX documents_sole_of_user ON documents (tenant_id, user_id, sha256) WHERE sole;

ALTER TABLE uploads
    ADD COLUMN collection text NOT NULL DEFAULT '',
    ADD COLUMN visibility text NOT NULL DEFAULT 'organisation' CHECK (visibility IN ('private', 'organisation')),
    ADD COLUMN allow_duplicate boolean NOT NULL DEFAULT false;

-- What each organisation has, documents and unfinished uploads together; changed by the statement that changes those.
CREATE TABLE usage (
    tenant_id uuid PRIMARY KEY,
    documents bigint NOT NULL,
    bytes bigint NOT NULL
);
INSERT INTO usage
SELECT tenant_id, count(*), sum(size_bytes)
FROM (SELECT tenant_id, size_bytes FROM documents UNION ALL SELECT tenant_id, size_bytes FROM uploads) AS stored
GROUP BY tenant_id;
