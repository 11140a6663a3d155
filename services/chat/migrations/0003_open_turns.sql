-- Whether a user may have one more running turn. Claims of one user wait for each other here, each until the one before
-- has committed; then the count is read anew, which a statement can't do that began to wait before. A repeat of a
-- request joins whatever is there, but for a turn that would be tried again.
CREATE FUNCTION may_claim(tenant uuid, asker uuid, request uuid, digest bytea, most integer) RETURNS boolean
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended(concat(tenant, asker), 0));
    RETURN EXISTS (
        SELECT FROM turns
        WHERE tenant_id = tenant AND user_id = asker AND request_id = request
            AND NOT (state = 'failed' AND message_id IS NULL AND content_digest = digest)
    ) OR most > (SELECT count(*) FROM turns WHERE tenant_id = tenant AND user_id = asker AND state = 'running');
END $$;
