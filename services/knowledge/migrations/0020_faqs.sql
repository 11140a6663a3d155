CREATE TABLE faqs (
    id uuid PRIMARY KEY,
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,           -- who made it
    request_id uuid NOT NULL,
    request_sha256 bytea NOT NULL,   -- of all that the request said
    question text NOT NULL,
    question_sha256 bytea NOT NULL,  -- of what tells questions apart
    alternatives jsonb NOT NULL,
    answer text NOT NULL,
    revision bigint NOT NULL,        -- the organisation's, when this one last changed
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant_id, user_id, request_id),
    UNIQUE (tenant_id, question_sha256)
);
CREATE INDEX faqs_newest ON faqs (tenant_id, create_time DESC, id DESC);
CREATE INDEX faqs_by_revision ON faqs (tenant_id, revision);

-- What an embedding model makes of the phrasings: FP16 vectors one after another, the question's first.
CREATE TABLE faq_vectors (
    tenant_id uuid NOT NULL,
    faq_id uuid NOT NULL REFERENCES faqs ON DELETE CASCADE,
    model text NOT NULL,
    vectors bytea NOT NULL,
    PRIMARY KEY (faq_id, model)
);

-- Each organisation's FAQs together. Every change takes the next revision and holds this row until it is committed, so a
-- reader who knows a revision has missed nothing before it.
CREATE TABLE faq_sets (
    tenant_id uuid PRIMARY KEY,
    faqs bigint NOT NULL,
    revision bigint NOT NULL
);
