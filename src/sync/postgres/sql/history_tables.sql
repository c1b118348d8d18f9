-- Returns the state of the tables for records, work, rate limits and leases, and their shape where it differs between installations: whether the
-- table is there; which rights this login lacks, including those on sequences of columns whose value the push does not
-- give; whether its times have no zone; whether events have a lineage, or work an agent; the type of checkpoints; the CHECKs of the types
-- of events; whether this login may write sessiond_history.
-- Rights on single columns may be enough: the push shows that.
-- Index: of the catalog.
WITH needed (name, given) AS (VALUES
    ('event_store', '{event_id, sequence_num}'::text[]), ('command_log', '{}'),
    ('checkpoints', '{checkpoint_id, sequence_num}'), ('session_work', '{}'), ('sessiond_limits', '{}'),
    ('sessiond_activity', '{}'), ('sessiond_leases', '{}')),
found AS (SELECT name, given, to_regclass(name) AS oid FROM needed)
SELECT name, oid IS NOT NULL,
    ARRAY(SELECT format('%s on %s', r, name) FROM unnest(ARRAY['SELECT', 'INSERT'] ||
            CASE WHEN name IN ('session_work', 'sessiond_limits', 'sessiond_activity', 'sessiond_leases')
                THEN ARRAY['UPDATE'] ELSE '{}' END ||
            CASE WHEN name = 'sessiond_leases' THEN ARRAY['DELETE'] ELSE '{}' END) AS r WHERE oid IS NOT NULL
        AND NOT has_table_privilege(oid, r)
        AND CASE WHEN r = 'DELETE' THEN true ELSE NOT has_any_column_privilege(oid, r) END) ||
    ARRAY(SELECT DISTINCT format('USAGE on sequence %s', s.oid::regclass) FROM pg_attrdef d
        JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attname <> ALL (given)
        JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid
            AND p.refclassid = 'pg_class'::regclass
        JOIN pg_class s ON s.oid = p.refobjid
        WHERE d.adrelid = found.oid AND CASE WHEN s.relkind = 'S'
            THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') ELSE false END),
    EXISTS (SELECT FROM pg_attribute WHERE attrelid = found.oid AND attname = 'created_at'
        AND atttypid = 'timestamp'::regtype),
    3 = (SELECT count(*) FROM pg_attribute WHERE attrelid = found.oid
        AND attname = ANY (CASE name WHEN 'session_work' THEN '{agent, agent_session_id, agent_version}'::text[]
            ELSE '{parent_uuid, root_uuid, depth}' END) AND NOT attisdropped),
    (SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = found.oid
        AND attname = 'checkpoint_type'),
    ARRAY(SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c WHERE c.conrelid = found.oid AND c.contype = 'c'
        AND c.conkey = ARRAY(SELECT attnum FROM pg_attribute WHERE attrelid = found.oid
            AND attname = 'event_type')),
    coalesce(has_table_privilege(to_regclass('sessiond_history'), 'INSERT'), false)
FROM found
