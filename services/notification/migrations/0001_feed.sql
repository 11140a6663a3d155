-- One row per user who ever had a notification. It gives out the places in the feed: whoever adds one holds this
-- row until commit, so a place becomes visible only after all earlier ones, and a reader that goes on after the
-- last place it saw misses none.
CREATE TABLE feeds (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    last_sequence bigint NOT NULL,
    PRIMARY KEY (tenant_id, user_id)
);

CREATE TABLE notifications (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    sequence bigint NOT NULL,
    id uuid NOT NULL UNIQUE DEFAULT gen_random_uuid(),
    kind text NOT NULL,            -- store.py names the class that each kind is
    subject jsonb NOT NULL,        -- the fields of that class
    create_time timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, user_id, sequence)
);
