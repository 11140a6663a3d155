-- E-mail addresses and refresh tokens are unique in the installation: they are what finds the tenant. Every other
-- statement is given the tenant.

-- name: find_credentials
SELECT tenant_id, id, email, display_name, role, create_time, password_hash, file_password_hash, registration_digest
FROM users WHERE email = $1;

-- name: find_user
SELECT tenant_id, id, email, display_name, role, create_time
FROM users WHERE tenant_id = $1 AND id = $2;

-- name: add_owner
-- No row: the address has an account, and nothing was written.
WITH added AS (
    INSERT INTO users (tenant_id, id, email, display_name, role, create_time,
                       password_hash, file_password_hash, registration_digest)
    VALUES ($1, $2, $3, $4, 'owner', $5, $6, $7, $8)
    ON CONFLICT (email) DO NOTHING
    RETURNING tenant_id, id
), organisation AS (
    INSERT INTO organisations (tenant_id, name, create_time)
    SELECT tenant_id, $9, $5 FROM added
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.auth.v1.UserRegistered', tenant_id, id, $10 FROM added
)
SELECT id FROM added;

-- name: replace_hash
-- Only if nobody changed the password meanwhile.
UPDATE users SET password_hash = $4 WHERE tenant_id = $1 AND id = $2 AND password_hash = $3;

-- name: live_sessions
SELECT id FROM sessions WHERE tenant_id = $1 AND user_id = $2 AND revoke_time IS NULL AND expire_time > $3;

-- name: reset_from_file
-- No row: another replica has applied the file.
WITH reset AS (
    UPDATE users SET password_hash = $4, file_password_hash = $4
    WHERE tenant_id = $1 AND id = $2 AND file_password_hash IS NOT DISTINCT FROM $3
    RETURNING tenant_id
), revoked AS (
    UPDATE sessions SET revoke_time = $5
    FROM reset, unnest($6::uuid[], $7::bytea[]) AS ended (id, payload)
    WHERE sessions.tenant_id = reset.tenant_id AND sessions.id = ended.id AND sessions.revoke_time IS NULL
    RETURNING sessions.tenant_id, sessions.id, ended.payload
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.auth.v1.SessionRevoked', tenant_id, id, payload FROM revoked
)
SELECT tenant_id FROM reset;

-- name: open_session
-- The user's sessions that ran out go at the same time, so that the tables grow with users, not with years.
WITH opened AS (
    INSERT INTO sessions (tenant_id, id, user_id, create_time, expire_time) VALUES ($1, $2, $3, $4, $5)
), token AS (
    INSERT INTO refresh_tokens (digest, tenant_id, session_id, expire_time) VALUES ($6, $1, $2, $5)
), forgotten AS (
    DELETE FROM sessions WHERE tenant_id = $1 AND user_id = $3 AND expire_time <= $4
)
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
VALUES ('parley.auth.v1.UserLoggedIn', $1, $2, $7);

-- name: find_session
SELECT sessions.id AS session_id, users.tenant_id, users.id, users.email, users.display_name, users.role,
       users.create_time
FROM refresh_tokens
JOIN sessions ON sessions.tenant_id = refresh_tokens.tenant_id AND sessions.id = refresh_tokens.session_id
JOIN users ON users.tenant_id = sessions.tenant_id AND users.id = sessions.user_id
WHERE refresh_tokens.digest = $1;

-- name: rotate
-- The row locks put simultaneous refreshes and logouts of a session in a row: each one decides on what the one
-- before it left, so that exactly one refresh wins and exactly one reuse revokes.
WITH presented AS (
    SELECT token.use_time, token.expire_time, sessions.revoke_time
    FROM sessions
    JOIN refresh_tokens AS token ON token.tenant_id = sessions.tenant_id AND token.session_id = sessions.id
    WHERE sessions.tenant_id = $1 AND sessions.id = $2 AND token.digest = $3
    FOR UPDATE
), decided AS (
    SELECT revoke_time, CASE
        WHEN use_time IS NOT NULL THEN 'reused'
        WHEN revoke_time IS NOT NULL OR expire_time <= $4 THEN 'invalid'
        ELSE 'rotated'
    END AS outcome
    FROM presented
), used AS (
    UPDATE refresh_tokens SET use_time = $4 FROM decided
    WHERE outcome = 'rotated' AND tenant_id = $1 AND digest = $3
), next AS (
    INSERT INTO refresh_tokens (digest, tenant_id, session_id, expire_time)
    SELECT $5, $1, $2, $6 FROM decided WHERE outcome = 'rotated'
), prolonged AS (
    UPDATE sessions SET expire_time = $6 FROM decided
    WHERE outcome = 'rotated' AND tenant_id = $1 AND id = $2
), forgotten AS (
    DELETE FROM refresh_tokens USING decided
    WHERE outcome = 'rotated' AND tenant_id = $1 AND session_id = $2 AND expire_time <= $4
), revoked AS (
    UPDATE sessions SET revoke_time = $4 FROM decided
    WHERE outcome = 'reused' AND decided.revoke_time IS NULL AND tenant_id = $1 AND id = $2
    RETURNING id
), event AS (
    INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
    SELECT 'parley.auth.v1.SessionRevoked', $1, id, $7 FROM revoked
)
SELECT outcome FROM decided;

-- name: revoke
WITH revoked AS (
    UPDATE sessions SET revoke_time = $3
    WHERE tenant_id = $1 AND id = $2 AND revoke_time IS NULL AND expire_time > $3
    RETURNING id
)
INSERT INTO outbox (event_type, tenant_id, aggregate_id, payload)
SELECT 'parley.auth.v1.SessionRevoked', $1, id, $4 FROM revoked;
