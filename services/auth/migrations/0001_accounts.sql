-- An organisation is a tenant.
CREATE TABLE organisations (
    tenant_id uuid PRIMARY KEY,
    name text NOT NULL,
    create_time timestamptz NOT NULL
);

CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES organisations,
    id uuid NOT NULL,
    email text NOT NULL UNIQUE,        -- normalised, see account.normal_email
    display_name text NOT NULL,
    role text NOT NULL CHECK (role IN ('owner', 'admin', 'member', 'viewer')),
    password_hash text NOT NULL,       -- Argon2id, PHC string
    file_password_hash text,           -- first administrator only: the password file's content that was applied last
    registration_digest bytea,         -- SHA-256 of what Register was asked, without the password
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE sessions (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    create_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,  -- of its newest refresh token
    revoke_time timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users ON DELETE CASCADE
);
CREATE INDEX sessions_of_user ON sessions (tenant_id, user_id);

CREATE TABLE refresh_tokens (
    digest bytea PRIMARY KEY,          -- SHA-256; the token itself is nowhere
    tenant_id uuid NOT NULL,
    session_id uuid NOT NULL,
    expire_time timestamptz NOT NULL,
    use_time timestamptz,              -- when it was traded for the next one
    FOREIGN KEY (tenant_id, session_id) REFERENCES sessions ON DELETE CASCADE
);
CREATE INDEX refresh_tokens_of_session ON refresh_tokens (tenant_id, session_id);
