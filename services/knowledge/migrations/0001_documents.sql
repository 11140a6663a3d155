CREATE TABLE documents (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,         -- who uploaded it
    request_id uuid NOT NULL,
    filename text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    content_type text NOT NULL DEFAULT '',
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'indexing', 'indexed', 'failed')),
    pages integer NOT NULL DEFAULT 0,
    passages integer NOT NULL DEFAULT 0,
    passages_indexed integer NOT NULL DEFAULT 0,
    failure_reason text,           -- a Reason; only when failed
    failure_message text,
    create_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, user_id, request_id)
);
CREATE INDEX documents_newest ON documents (tenant_id, create_time DESC, id DESC);

CREATE TABLE passages (
    id uuid PRIMARY KEY,           -- follows from document and position
    tenant_id uuid NOT NULL,
    document_id uuid NOT NULL REFERENCES documents ON DELETE CASCADE,
    position integer NOT NULL,
    page integer,
    headings jsonb NOT NULL,
    text text NOT NULL,
    UNIQUE (document_id, position)
);

-- Uploads in chunks that have not become documents.
CREATE TABLE uploads (
    id uuid PRIMARY KEY,           -- of the document too, later
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    request_id uuid NOT NULL,
    filename text NOT NULL,
    size_bytes bigint NOT NULL,
    sha256 text NOT NULL,
    received_bytes bigint NOT NULL DEFAULT 0,
    create_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, user_id, request_id)
);
CREATE INDEX uploads_oldest ON uploads (create_time);
