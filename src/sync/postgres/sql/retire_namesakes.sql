-- Retires other hosts with the machine name $2, because an operator had this host ($1) replace them.
-- Index: sessiond_hosts_machine_name.
UPDATE sessiond_hosts SET retired_at = now(), replaced_by = $1
WHERE machine_name = $2 AND host_id <> $1 AND retired_at IS NULL
