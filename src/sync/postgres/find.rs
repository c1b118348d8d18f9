//! Reads sessions that a host does not read ahead, when they are wanted: first their ids, then the rows, their work and
//! their history. All of it is bounded.

use super::link::{Access, Link, column};
use super::pull::history;
use super::pull::page::skip;
use super::registered_host::RegisteredHost;
use super::{pull, sql, work};
use crate::domain::mirror::ChangePage;
use crate::domain::on_demand::{Found, MAX_FOUND, MAX_OF_PROJECT, Question};
use crate::domain::{Hint, Project, Timestamp};
use crate::sync::central::CentralError;

/// The most history of an answer, in bytes.
const HISTORY_BYTES: u32 = 2 << 20;

/// How many rows of work are read at once: each may have 16 KiB.
const WORK_AT_ONCE: usize = 64;

/// Later than any session was closed: leaves out all that are.
const NEVER: Timestamp = Timestamp::from_micros(i64::MAX / 4);

pub(super) async fn find(link: &mut Link, host: &RegisteredHost, question: &Question) -> Result<Found, CentralError> {
    link.begin_reading(Access::Read).await?;
    let found = answer(link, host, question).await?;
    link.commit().await?;
    Ok(found)
}

async fn answer(link: &mut Link, host: &RegisteredHost, question: &Question) -> Result<Found, CentralError> {
    match question {
        Question::Id(text) => {
            let found = read(link, host, vec![text.clone()], MAX_FOUND).await?;
            if !found.page.sessions.is_empty() {
                return Ok(found);
            }
            let ids = by_part(link, &format!("{}%", escaped(text)), true).await?;
            read(link, host, ids, MAX_FOUND).await
        }
        Question::Project { project, closed_since } => {
            let ids = of_project(link, project, *closed_since, MAX_OF_PROJECT).await?;
            read(link, host, ids, MAX_OF_PROJECT).await
        }
        Question::Hint(meanings) => {
            for meaning in meanings {
                let ids = by_hint(link, meaning).await?;
                let found = read(link, host, ids, MAX_FOUND).await?;
                if !found.page.sessions.is_empty() {
                    return Ok(found);
                }
            }
            Ok(Found::default())
        }
    }
}

async fn by_hint(link: &mut Link, meaning: &Hint) -> Result<Vec<String>, CentralError> {
    match meaning {
        Hint::Id(id) => Ok(vec![id.to_string()]),
        Hint::Hash(part) => by_part(link, &format!("%-%{}%", escaped(part)), false).await,
        Hint::Epic(epic) => {
            let query = sqlx::query(sql::FIND_SESSIONS_OF_EPIC).bind(epic);
            ids(link, query.bind(one_more(MAX_FOUND))).await
        }
        Hint::Project(project) => of_project(link, project, Some(NEVER), MAX_FOUND).await,
        Hint::Newest => Ok(Vec::new()),
    }
}

async fn by_part(link: &mut Link, pattern: &str, closed_too: bool) -> Result<Vec<String>, CentralError> {
    let query = sqlx::query(sql::FIND_SESSIONS_BY_PART).bind(pattern).bind(one_more(MAX_FOUND)).bind(closed_too);
    ids(link, query).await
}

async fn of_project(
    link: &mut Link,
    project: &Project,
    closed_since: Option<Timestamp>,
    limit: u32,
) -> Result<Vec<String>, CentralError> {
    let query = sqlx::query(sql::FIND_SESSIONS_OF_PROJECT).bind(project.as_str()).bind(one_more(limit));
    ids(link, query.bind(closed_since.map(Timestamp::micros))).await
}

async fn ids(
    link: &mut Link,
    query: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
) -> Result<Vec<String>, CentralError> {
    link.rows(query).await?.iter().map(|row| column(row, 0)).collect()
}

/// One more row shows that there are more.
fn one_more(limit: u32) -> i64 {
    i64::from(limit) + 1
}

/// The text without characters that have a meaning in a pattern of LIKE.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")
}

/// Reads at most `limit` of the sessions with these ids.
async fn read(link: &mut Link, host: &RegisteredHost, mut ids: Vec<String>, limit: u32) -> Result<Found, CentralError> {
    let more = ids.len() > limit as usize;
    ids.truncate(limit as usize);
    let mut page = ChangePage::default();
    if ids.is_empty() {
        return Ok(Found { page, more });
    }
    for row in &link.rows(sqlx::query(sql::SESSIONS_BY_ID).bind(&ids)).await? {
        match pull::session(row) {
            Ok(session) => page.sessions.push(session),
            Err(why) => skip("a session", &why, &mut page.unreadable),
        }
    }
    let ids: Vec<_> = page.sessions.iter().map(|session| session.instance_id.to_string()).collect();
    for part in ids.chunks(WORK_AT_ONCE) {
        let work = work::of_sessions(link, host, part, &mut page.unreadable).await?;
        page.work.extend(work);
    }
    if limit == MAX_FOUND && !ids.is_empty() {
        history::of_sessions(link, &ids, HISTORY_BYTES, &mut page).await?;
    }
    Ok(Found { page, more })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_no_pattern() {
        assert_eq!(escaped(r"odin-PS-8f"), "odin-PS-8f");
        assert_eq!(escaped(r"50%_\"), r"50\%\_\\");
    }
}
