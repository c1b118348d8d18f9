//! Finds the objects because of which Postgres refuses to change the type of a column, before anything is changed.
//!
//! Views, indexes, constraints and statistics are restored by the migration itself. Triggers, rules, policies,
//! generated columns, functions and publications have to be removed by the operator, because
//! something may depend on their effect. The error names the statements that remove and restore them.

use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::columns::NaiveColumn;
use super::error::Obstacle;

/// `$1` and `$2`: table and name of each column, `$3` its zone. An expression that must be immutable reads the
/// column by its zone afterwards.
const OBSTACLES: &str = r"
    WITH columns AS (
        SELECT a.attrelid, a.attnum, a.attname, g.zone, a.attrelid::regclass::text AS of_table
        FROM unnest($1::text[], $2::text[], $3::text[]) AS g (name, attname, zone)
        JOIN pg_attribute a ON a.attrelid = to_regclass(g.name) AND a.attname = g.attname),
    dependents AS (
        SELECT DISTINCT d.classid, d.objid, d.objsubid, c.*
        FROM pg_depend d JOIN columns c ON d.refobjid = c.attrelid AND d.refobjsubid = c.attnum
        WHERE d.refclassid = 'pg_class'::regclass)
    SELECT format('trigger %I on %s', t.tgname, t.tgrelid::regclass),
        format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid)
    FROM dependents d JOIN pg_trigger t ON t.oid = d.objid AND d.classid = 'pg_trigger'::regclass AND NOT t.tgisinternal
        AND t.tgparentid = 0
    UNION
    SELECT format('policy %I on %s', p.polname, p.polrelid::regclass),
        format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass),
        format('CREATE POLICY %I ON %s AS %s FOR %s TO %s%s%s', p.polname, p.polrelid::regclass,
            CASE WHEN p.polpermissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
            CASE p.polcmd WHEN 'r' THEN 'SELECT' WHEN 'a' THEN 'INSERT' WHEN 'w' THEN 'UPDATE' WHEN 'd' THEN 'DELETE'
                ELSE 'ALL' END,
            (SELECT string_agg(CASE r WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(r)) END, ', ')
                FROM unnest(p.polroles) AS r),
            ' USING (' || pg_get_expr(p.polqual, p.polrelid) || ')',
            ' WITH CHECK (' || pg_get_expr(p.polwithcheck, p.polrelid) || ')')
    FROM dependents d JOIN pg_policy p ON p.oid = d.objid AND d.classid = 'pg_policy'::regclass
    UNION
    SELECT format('generated column %I of %s', a.attname, a.attrelid::regclass),
        format('ALTER TABLE %s DROP COLUMN %I', a.attrelid::regclass, a.attname),
        format('ALTER TABLE %s ADD COLUMN %I %s GENERATED ALWAYS AS (%s) STORED', a.attrelid::regclass, a.attname,
            format_type(a.atttypid, a.atttypmod),
            regexp_replace(pg_get_expr(f.adbin, f.adrelid), '\m' || d.attname || '\M',
                format('(%s AT TIME ZONE %L)', d.attname, d.zone), 'g'))
    FROM dependents d
    JOIN pg_attrdef f ON d.classid = 'pg_attrdef'::regclass AND f.oid = d.objid
        OR d.classid = 'pg_class'::regclass AND f.adrelid = d.objid AND f.adnum = d.objsubid
    JOIN pg_attribute a ON a.attrelid = f.adrelid AND a.attnum = f.adnum AND a.attgenerated <> ''
    UNION
    SELECT format('function %s', p.oid::regprocedure), format('DROP ROUTINE %s', p.oid::regprocedure),
        pg_get_functiondef(p.oid)
    FROM dependents d JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
    UNION
    SELECT format('publication %I with %s', p.pubname, d.of_table),
        format('ALTER PUBLICATION %I DROP TABLE %s', p.pubname, d.of_table),
        format('ALTER PUBLICATION %I ADD TABLE %s%s%s', p.pubname, d.of_table,
            CASE WHEN to_jsonb(r) ->> 'prattrs' IS NOT NULL THEN
                ' (' || (SELECT string_agg(quote_ident(name), ', ')
                    FROM jsonb_array_elements_text(to_jsonb(t) -> 'attnames') AS name) || ')' END,
            ' WHERE (' || regexp_replace(to_jsonb(t) ->> 'rowfilter', '\m' || d.attname || '\M',
                format('(%s AT TIME ZONE %L)', d.attname, d.zone), 'g') || ')')
    FROM dependents d
    JOIN pg_publication_rel r ON r.oid = d.objid AND d.classid = 'pg_publication_rel'::regclass
    JOIN pg_publication p ON p.oid = r.prpubid
    JOIN pg_class c ON c.oid = r.prrelid
    JOIN pg_publication_tables t ON t.pubname = p.pubname AND t.tablename = c.relname
        AND t.schemaname = c.relnamespace::regnamespace::text
    UNION
    SELECT format('rule %I on %s', r.rulename, r.ev_class::regclass),
        format('DROP RULE %I ON %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid)
    FROM dependents d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
    JOIN pg_class c ON c.oid = r.ev_class AND c.relkind NOT IN ('v', 'm')
    UNION
    SELECT format('the partitioning of %s by %I', d.of_table, d.attname),
        'create the table again, partitioned by a column of type timestamptz', ''
    FROM columns d JOIN pg_partitioned_table p ON p.partrelid = d.attrelid AND d.attnum = ANY (p.partattrs)
    UNION
    SELECT format('the parent %s of %s', i.inhparent::regclass, d.of_table),
        format('ALTER TABLE %s NO INHERIT %s', d.of_table, i.inhparent::regclass),
        format('ALTER TABLE %s INHERIT %s', d.of_table, i.inhparent::regclass)
    FROM columns d
    JOIN pg_attribute a ON a.attrelid = d.attrelid AND a.attnum = d.attnum AND a.attinhcount > 0
    JOIN pg_inherits i ON i.inhrelid = d.attrelid
    UNION
    SELECT format('column %I of %s, which has the row type of %s,', a.attname, a.attrelid::regclass, d.of_table),
        format('ALTER TABLE %s DROP COLUMN %I', a.attrelid::regclass, a.attname),
        format('ALTER TABLE %s ADD COLUMN %I %s', a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod))
    FROM columns d
    JOIN pg_class c ON c.oid = d.attrelid
    JOIN pg_type y ON y.oid = c.reltype
    JOIN pg_attribute a ON a.atttypid IN (y.oid, y.typarray) AND NOT a.attisdropped
    JOIN pg_class u ON u.oid = a.attrelid AND u.relkind IN ('r', 'p', 'm')";

/// Objects other than views that depend on the views which have to be created again.
const ON_VIEWS: &str = r"
    WITH RECURSIVE dependent (oid) AS (
        SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name
        UNION
        SELECT r.ev_class
        FROM dependent
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = dependent.oid
            AND d.classid = 'pg_rewrite'::regclass
        JOIN pg_rewrite r ON r.oid = d.objid),
    views AS (
        SELECT c.oid, c.oid::regclass::text AS name, c.reltype, t.typarray
        FROM dependent JOIN pg_class c USING (oid) LEFT JOIN pg_type t ON t.oid = c.reltype
        WHERE c.relkind IN ('v', 'm')),
    users AS (
        SELECT DISTINCT d.classid, d.objid, d.objsubid, v.name
        FROM views v
        JOIN pg_depend d ON d.deptype = 'n' AND (d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid
            OR d.refclassid = 'pg_type'::regclass AND d.refobjid IN (v.reltype, v.typarray)))
    SELECT format('%s, which uses view %s,', pg_describe_object(u.classid, u.objid, u.objsubid), u.name),
        CASE
            WHEN u.classid = 'pg_proc'::regclass THEN format('DROP ROUTINE %s', u.objid::regprocedure)
            WHEN u.classid = 'pg_policy'::regclass
                THEN (SELECT format('DROP POLICY %I ON %s', polname, polrelid::regclass) FROM pg_policy WHERE oid = u.objid)
            WHEN u.classid = 'pg_rewrite'::regclass
                THEN (SELECT format('DROP RULE %I ON %s', rulename, ev_class::regclass) FROM pg_rewrite WHERE oid = u.objid)
            ELSE 'drop it, or change it so that it does not use the view' END,
        CASE
            WHEN u.classid = 'pg_proc'::regclass THEN pg_get_functiondef(u.objid)
            WHEN u.classid = 'pg_rewrite'::regclass THEN pg_get_ruledef(u.objid)
            ELSE 'create it again' END
    FROM users u
    WHERE NOT (u.classid = 'pg_rewrite'::regclass AND EXISTS (
        SELECT FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class
        WHERE r.oid = u.objid AND c.relkind IN ('v', 'm')))";

pub(super) async fn find(connection: &mut PgConnection, columns: &[NaiveColumn]) -> Result<Vec<Obstacle>, sqlx::Error> {
    let of = |of: fn(&NaiveColumn) -> &String| columns.iter().map(|column| of(column).clone()).collect::<Vec<_>>();
    let tables = of(|column| &column.table);
    let on_columns = sqlx::query(OBSTACLES).bind(tables.clone()).bind(of(|c| &c.name)).bind(of(|c| &c.zone));
    let mut rows = on_columns.fetch_all(&mut *connection).await?;
    rows.extend(sqlx::query(ON_VIEWS).bind(tables).fetch_all(connection).await?);
    let obstacle = |row: &PgRow| {
        Ok(Obstacle {
            object: row.try_get(0)?,
            remove: row.try_get(1)?,
            restore: row.try_get::<Option<String>, _>(2)?.unwrap_or_default(),
        })
    };
    rows.iter().map(obstacle).collect()
}
