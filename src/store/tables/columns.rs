//! Lists of columns, each written once: SQL names them by the list, and reading a row takes their positions from it.

/// Defines an enum of columns, in the order in which they are selected: `ALL`, `LIST` for a SELECT, and `name`.
///
/// `LIST` has the alias of the table before each name, and after them the expressions that follow the list.
macro_rules! columns {
    ($(#[$doc:meta])* $list:ident of $alias:literal {
        $first:ident = $first_name:literal, $($column:ident = $name:literal,)*
    } $($more:literal)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(clippy::enum_variant_names, reason = "they are the names of the columns")]
        pub(in crate::store) enum $list { $first, $($column),* }

        #[allow(dead_code, reason = "not every table is also written by its list")]
        impl $list {
            pub(in crate::store) const ALL: &'static [Self] = &[Self::$first, $(Self::$column),*];
            pub(in crate::store) const LIST: &'static str =
                concat!($alias, $first_name $(, ", ", $alias, $name)* $(, ", ", $more)*);

            pub(in crate::store) const fn name(self) -> &'static str {
                match self {
                    Self::$first => $first_name,
                    $(Self::$column => $name),*
                }
            }

            /// The position in `LIST`.
            pub(in crate::store) const fn at(self) -> usize {
                self as usize
            }
        }
    };
}
pub(in crate::store) use columns;

/// Condition on a session that it is one of this host.
macro_rules! ours {
    () => {
        "mirror_generation IS NULL"
    };
}
pub(in crate::store) use ours;

/// Condition on a session that it is mirrored: one of another host, or a former one of this host.
macro_rules! mirrored {
    () => {
        "mirror_generation IS NOT NULL"
    };
}
pub(in crate::store) use mirrored;

/// Condition on a session that it is active now: the rule of [`crate::domain::liveness`]. The parameters are those of
/// `Op::active_between`.
macro_rules! is_active {
    ($from:literal, $until:literal) => {
        concat!(
            "(status = 'active' AND (last_heartbeat > ",
            $from,
            " AND last_heartbeat < ",
            $until,
            " OR EXISTS (SELECT 1 FROM hosts WHERE hosts.host_id = vouched_by AND hosts.last_seen > ",
            $from,
            " AND hosts.last_seen < ",
            $until,
            ")))"
        )
    };
}
pub(in crate::store) use is_active;

pub(in crate::store) const OURS: &str = ours!();
pub(in crate::store) const MIRRORED: &str = mirrored!();
