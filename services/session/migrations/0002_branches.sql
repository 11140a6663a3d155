-- The turns of a conversation become a tree: each follows another one, and several may follow the same. Until now
-- each followed the one asked before it: those become one branch.
--
-- A branch is a run of turns, each following the one before, named by its first turn. The first turn to follow
-- another goes on with its branch; each later one begins a branch that forks there. So the turns of a long thread
-- are found by a few branches and positions, not by walking from turn to turn.

ALTER TABLE conversations
    ADD COLUMN last_turn_id uuid,      -- the turn asked last and its branch: the current one; absent before the first
    ADD COLUMN last_branch_id uuid;

-- No foreign key leads from turn to turn: a turn goes only with its whole conversation, and to check each of them
-- against all others would make that slow.
ALTER TABLE turns
    ADD COLUMN position bigint,        -- its question's
    ADD COLUMN parent_turn_id uuid,    -- the turn before it; absent for those that a branch of its own begins with
    ADD COLUMN branch_id uuid,
    ADD COLUMN fork_branch_id uuid,    -- first turn of a branch only: the branch it forks from ...
    ADD COLUMN fork_position bigint;   -- ... and the position of the last turn that both have

WITH asked AS (
    SELECT tenant_id, turn_id, position, lag(turn_id) OVER thread AS parent_turn_id,
        first_value(turn_id) OVER thread AS branch_id
    FROM messages WHERE role = 'user' WINDOW thread AS (PARTITION BY tenant_id, conversation_id ORDER BY position)
)
UPDATE turns SET position = asked.position, parent_turn_id = asked.parent_turn_id, branch_id = asked.branch_id
FROM asked WHERE turns.tenant_id = asked.tenant_id AND turns.id = asked.turn_id;

UPDATE conversations SET last_turn_id = last.id, last_branch_id = last.branch_id
FROM (
    SELECT DISTINCT ON (tenant_id, conversation_id) tenant_id, conversation_id, id, branch_id
    FROM turns ORDER BY tenant_id, conversation_id, position DESC
) AS last
WHERE conversations.tenant_id = last.tenant_id AND conversations.id = last.conversation_id;

ALTER TABLE turns
    ALTER COLUMN position SET NOT NULL,
    ALTER COLUMN branch_id SET NOT NULL,
    -- Siblings share it: the turn before them or, where nothing is before them, the conversation.
    ADD COLUMN place_id uuid NOT NULL GENERATED ALWAYS AS (coalesce(parent_turn_id, conversation_id)) STORED,
    ADD CONSTRAINT fork_is_whole CHECK ((fork_branch_id IS NULL) = (fork_position IS NULL)),
    ADD CONSTRAINT only_the_first_turn_forks CHECK (fork_branch_id IS NULL OR branch_id = id),
    -- Two that follow one turn at the same time can't both go on with its branch.
    ADD CONSTRAINT a_branch_is_a_line UNIQUE (tenant_id, conversation_id, place_id, branch_id);
CREATE INDEX turns_of_branch ON turns (tenant_id, branch_id, position);
CREATE INDEX forks_of_branch ON turns (tenant_id, fork_branch_id, fork_position) WHERE fork_branch_id IS NOT NULL;
DROP INDEX turns_of_conversation;  -- the constraint's index begins with the same columns

-- Every statement of this service finds its rows by key. Without this, a plan that was made while the tables were
-- small reads them whole, once for each turn of a thread, until they are next counted.
DO $$ BEGIN
    EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET enable_seqscan = off', current_database());
END $$;
