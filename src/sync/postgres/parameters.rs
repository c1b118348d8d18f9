//! Values of types that sqlx does not know here, and columns that a central of an older version lacks.

use sqlx::decode::Decode;
use sqlx::encode::{Encode, IsNull};
use sqlx::error::BoxDynError;
use sqlx::postgres::types::Oid;
use sqlx::postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef};
use sqlx::{Postgres, Type};

use crate::domain::Timestamp;

/// A time of type timestamptz, as a parameter or as a value. A number of microseconds would have to be added to a time in SQL,
/// by a function that the server does not take for immutable, and to make one costs it more than to read the row.
#[derive(Clone, Copy)]
pub(super) struct ServerTime(pub Timestamp);

/// The type timestamptz, and that of its arrays.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// The server counts from 2000-01-01T00:00:00Z: the microseconds from 1970 until then.
const SERVER_EPOCH: i64 = 946_684_800_000_000;

/// What is read is cut to the years 1 to 9999, so that `infinity` can be read too: their first and last day.
const READABLE: (i64, i64) = (-62_135_596_800_000_000, 253_402_214_400_000_000);

impl Type<Postgres> for ServerTime {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for ServerTime {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for ServerTime {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        <i64 as Encode<Postgres>>::encode(self.0.micros().saturating_sub(SERVER_EPOCH), buffer)
    }
}

impl Decode<'_, Postgres> for ServerTime {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let micros = i64::from_be_bytes(value.as_bytes()?.try_into()?).saturating_add(SERVER_EPOCH);
        Ok(Self(Timestamp::from_micros(micros.clamp(READABLE.0, READABLE.1))))
    }
}

/// A column that a central of an older version lacks.
pub(super) struct OptionalColumn {
    /// The word that stands for it in a statement.
    word: &'static str,
    name: &'static str,
    /// Reads it from the whole row, which costs more: null where the table has no such column, and its value once
    /// `migrate` has added it, without another handshake.
    of_row: &'static str,
}

impl OptionalColumn {
    pub(super) const AGENT: Self = Self { word: "AGENT", name: "agent", of_row: "to_jsonb(session_work) ->> 'agent'" };
    pub(super) const STALE_AFTER: Self = Self {
        word: "STALE_AFTER",
        name: "stale_after",
        of_row: "(to_jsonb(sessiond_hosts) ->> 'stale_after')::interval",
    };
    pub(super) const VOUCHING_CLAIM: Self = Self {
        word: "VOUCHING_CLAIM",
        name: "vouching_claim",
        of_row: "(to_jsonb(sessiond_hosts) ->> 'vouching_claim')::uuid",
    };

    /// The statement with the column. `existed`: the table had it at the handshake.
    pub(super) fn insert(&self, statement: &str, existed: bool) -> String {
        statement.replace(self.word, if existed { self.name } else { self.of_row })
    }
}

#[cfg(test)]
mod tests {
    use super::super::sql;
    use super::*;

    #[test]
    fn optional_columns_are_named_once_in_their_statements() {
        for (column, statements) in [
            (OptionalColumn::AGENT, [sql::ALL_WORK, sql::CHANGED_WORK]),
            (OptionalColumn::STALE_AFTER, [sql::SWEEP_SESSIONS, sql::SWEEP_SESSIONS]),
            (OptionalColumn::VOUCHING_CLAIM, [sql::HOSTS, sql::HOSTS_WITH_LIMITS]),
        ] {
            for statement in statements {
                assert_eq!(statement.matches(column.word).count(), 1, "{}", column.word);
                assert!(column.insert(statement, false).contains(column.of_row));
                assert!(!column.insert(statement, true).contains(column.word));
            }
        }
    }
}
