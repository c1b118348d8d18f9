-- Where an active session works, as its work last said: by these, sessions that may get in each other's way are found.
-- Copies of what session_work has, in the row that says whether the session is active, so that the indexes hold active
-- sessions alone. A heartbeat touches none of them.
ALTER TABLE sessions ADD COLUMN worktree TEXT;
ALTER TABLE sessions ADD COLUMN repository TEXT;
ALTER TABLE sessions ADD COLUMN branch TEXT;

UPDATE sessions SET (worktree, repository, branch) =
    (SELECT summary ->> '$.worktree', summary ->> '$.repository', summary ->> '$.branch'
        FROM session_work w WHERE w.instance_id = sessions.instance_id AND json_valid(summary));

CREATE INDEX sessions_in_worktree ON sessions (worktree, instance_id) WHERE worktree IS NOT NULL AND status = 'active';
CREATE INDEX sessions_on_branch ON sessions (branch, repository, instance_id)
    WHERE branch IS NOT NULL AND status = 'active';
CREATE INDEX sessions_on_epic ON sessions (current_epic, project, instance_id)
    WHERE current_epic IS NOT NULL AND status = 'active';
