-- The address that a document was fetched from; empty for an upload.
ALTER TABLE documents ADD COLUMN source_url text NOT NULL DEFAULT '';

CREATE TABLE crawls (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,         -- who made it; its documents are this user's
    request_id uuid NOT NULL,
    url text NOT NULL,
    collection text NOT NULL,
    visibility text NOT NULL CHECK (visibility IN ('private', 'organisation')),
    max_depth integer NOT NULL,
    max_pages integer NOT NULL,
    max_bytes bigint NOT NULL,
    max_seconds integer NOT NULL,
    state text NOT NULL DEFAULT 'queued'
        CHECK (state IN ('queued', 'running', 'indexing', 'done', 'stopped', 'failed')),
    slice integer NOT NULL DEFAULT 1,
    sites text[] NOT NULL,
    bytes bigint NOT NULL DEFAULT 0,
    limit_reached text NOT NULL DEFAULT '' CHECK (limit_reached IN ('', 'pages', 'bytes', 'seconds')),
    failure_reason text,           -- a Reason; only when failed
    failure_message text,
    create_time timestamptz NOT NULL DEFAULT now(),
    start_time timestamptz,
    end_time timestamptz,
    UNIQUE (tenant_id, user_id, request_id)
);
CREATE INDEX crawls_newest ON crawls (tenant_id, create_time DESC, id DESC);

CREATE TABLE crawl_pages (
    crawl_id uuid NOT NULL REFERENCES crawls ON DELETE CASCADE,
    position bigint GENERATED ALWAYS AS IDENTITY,
    tenant_id uuid NOT NULL,
    url text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('start', 'page', 'sitemap')),
    depth integer NOT NULL,
    hops integer NOT NULL,
    state text NOT NULL DEFAULT 'waiting'
        CHECK (state IN ('waiting', 'indexing', 'indexed', 'unchanged', 'skipped', 'failed')),
    tries integer NOT NULL DEFAULT 0,
    reason text,
    message text NOT NULL DEFAULT '',
    is_gone boolean NOT NULL DEFAULT false,
    document_id uuid,
    next_document_id uuid,         -- being indexed; takes the place of document_id then
    etag text NOT NULL DEFAULT '',
    last_modified text NOT NULL DEFAULT '',
    sha256 text NOT NULL DEFAULT '',
    visit_time timestamptz,
    PRIMARY KEY (crawl_id, position),
    UNIQUE (crawl_id, url)
);
CREATE INDEX crawl_pages_by_state ON crawl_pages (crawl_id, state, tries, depth, position);
CREATE INDEX crawl_pages_by_document ON crawl_pages (document_id) WHERE document_id IS NOT NULL;
CREATE INDEX crawl_pages_by_next_document ON crawl_pages (next_document_id) WHERE next_document_id IS NOT NULL;
