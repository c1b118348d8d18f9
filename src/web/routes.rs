//! What the server answers: the page's files, its data as JSON, and events.
//!
//! Every response, also a refusal, carries the headers of [`with_safe_headers`]: nothing but the page's own files runs
//! or is loaded, no other page embeds it, and nothing is stored.

use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{self, HeaderName};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use super::access::{ACTION_HEADER, Access, Decision, RequestSource};
use super::events;
use super::fleet::{MAX_WINDOW, Window};
use super::follower::SharedFleet;
use crate::client::{Client, Resolved};
use crate::clock::Clock;
use crate::domain::text::{safe_json, safe_lines};
use crate::shutdown::Shutdown;
use crate::wire::{ActivityParams, ErrorCode, ErrorDetail};

/// Event streams at once; a further one is refused with 503.
pub(super) const STREAMS: usize = 64;
/// The largest body of a request, in bytes. None is read.
const MAX_BODY: u64 = 1024;
/// The longest target of a request, in bytes.
const MAX_TARGET: usize = 2048;

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
    img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The page's files.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("page/index.html")),
    ("/style.css", "text/css; charset=utf-8", include_str!("page/style.css")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("page/app.js")),
    ("/dom.js", "text/javascript; charset=utf-8", include_str!("page/dom.js")),
    ("/plots.js", "text/javascript; charset=utf-8", include_str!("page/plots.js")),
    ("/session.js", "text/javascript; charset=utf-8", include_str!("page/session.js")),
    ("/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
];

/// What all requests share.
pub(super) struct Site {
    access: Arc<Access>,
    client: Client,
    pub(super) fleet: SharedFleet,
    pub(super) streams: Arc<Semaphore>,
    allow_actions: bool,
    pub(super) clock: Clock,
}

impl Site {
    pub(super) fn new(
        access: Arc<Access>,
        client: Client,
        fleet: SharedFleet,
        allow_actions: bool,
        clock: Clock,
    ) -> Self {
        Self { access, client, fleet, streams: Arc::new(Semaphore::new(STREAMS)), allow_actions, clock }
    }
}

/// Answers a request.
pub(super) async fn respond(site: Arc<Site>, request: Request<()>, shutdown: Shutdown) -> Response<Body> {
    let response = match decide(&site.access, &request) {
        Decision::Foreign => text(StatusCode::FORBIDDEN, "This address or origin is not the page's own.\n"),
        Decision::Unauthorized => unauthorized(request.headers()),
        Decision::TokenAccepted => {
            let mut response = text(StatusCode::SEE_OTHER, "");
            let headers = response.headers_mut();
            headers.insert(header::LOCATION, HeaderValue::from_static("/"));
            if let Ok(cookie) = HeaderValue::from_str(&site.access.set_cookie()) {
                headers.insert(header::SET_COOKIE, cookie);
            }
            response
        }
        Decision::Allowed => route(&site, &request, shutdown).await,
    };
    with_safe_headers(response)
}

fn all(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
    // A value that is no text matches nothing.
    headers.get_all(name).iter().map(|value| value.to_str().unwrap_or("\u{0}")).collect()
}

/// Applies the rules to what the request says of itself.
fn decide(access: &Access, request: &Request<()>) -> Decision {
    let [hosts, origins, cookies] =
        [header::HOST, header::ORIGIN, header::COOKIE].map(|name| all(request.headers(), name));
    let query = request.uri().query().unwrap_or_default();
    let asks_for_page = request.uri().path() == "/" && request.method() == Method::GET;
    let token = query.split('&').find_map(|pair| pair.strip_prefix("token=")).filter(|_| asks_for_page);
    let authority = request.uri().authority().map(|authority| authority.as_str());
    access.decide(&RequestSource { hosts: &hosts, authority, origins: &origins, cookies: &cookies, token })
}

/// Links from other sites arrive without the cookie, which is for requests of the page's own alone: such a browser is
/// sent on by a page of this server, once.
fn unauthorized(headers: &HeaderMap) -> Response<Body> {
    let is = |name: &'static str, value: &str| headers.get(name).is_some_and(|found| found == value);
    let mut response = if is("sec-fetch-dest", "document") && is("sec-fetch-site", "cross-site") {
        let page = "<!doctype html><meta http-equiv=\"refresh\" content=\"0; url=/\"><title>sessiond</title>\n";
        content("text/html; charset=utf-8", page)
    } else {
        text(StatusCode::UNAUTHORIZED, "Open the URL that `sessiond web` printed; its token is accepted once.\n")
    };
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response
}

async fn route(site: &Arc<Site>, request: &Request<()>, shutdown: Shutdown) -> Response<Body> {
    let (method, path) = (request.method(), request.uri().path());
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.unwrap_or(0) > MAX_BODY || request.uri().path_and_query().is_some_and(|p| p.as_str().len() > MAX_TARGET) {
        return text(StatusCode::PAYLOAD_TOO_LARGE, "The request is too large.\n");
    }
    let session = path.strip_prefix("/api/sessions/");
    if let Some(id) = session.and_then(|rest| rest.strip_suffix("/close")).filter(|id| !id.contains('/')) {
        return match *method == Method::POST {
            true => close(site, request.headers(), id).await,
            false => not_allowed("POST"),
        };
    }
    if *method != Method::GET && *method != Method::HEAD {
        return not_allowed("GET, HEAD");
    }
    if let Some((_, kind, file)) = FILES.iter().find(|(name, ..)| *name == path) {
        return content(kind, *file);
    }
    let query = request.uri().query().unwrap_or_default();
    match (path, session) {
        ("/api/view", _) => view(site, query),
        ("/api/hours", _) => json_of(site.ask(|client| client.activity_hours()).await),
        ("/events", _) => events::stream(site, shutdown),
        (_, Some(id)) if !id.is_empty() && !id.contains('/') => session_page(site, id).await,
        _ => text(StatusCode::NOT_FOUND, "There is no such page.\n"),
    }
}

fn view(site: &Site, query: &str) -> Response<Body> {
    let mut window = Window { limit: 100, ..Window::default() };
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let value = percent_encoding::percent_decode_str(&value.replace('+', " ")).decode_utf8_lossy().into_owned();
        match name {
            "q" => window.words = value.to_lowercase().split_whitespace().map(str::to_owned).take(8).collect(),
            "machine" => window.machine = Some(value).filter(|value| !value.is_empty()),
            "need" => window.need = Some(value).filter(|value| !value.is_empty()),
            "offset" => window.offset = value.parse().unwrap_or(0),
            "limit" => window.limit = value.parse().unwrap_or(100).clamp(1, MAX_WINDOW),
            _ => {}
        }
    }
    let fleet = site.fleet.lock();
    json_body(StatusCode::OK, &fleet.view(&window, site.allow_actions, (site.clock)()))
}

/// A session, all that its page shows.
async fn session_page(site: &Site, id: &str) -> Response<Body> {
    let id = decoded(id);
    let read = move |client: &Client| {
        let session = match client.show(&id)? {
            Resolved::One(session) => *session,
            Resolved::Several(_) => return Err(not_found(&id)),
        };
        let id = session.instance_id.as_str();
        let work = client.work(id)?;
        let activity = client.activity(id, &ActivityParams::default())?;
        let command = match client.context(id)? {
            Resolved::One(context) => context.command,
            Resolved::Several(_) => None,
        };
        let handoff = match client.handoff(id)? {
            Resolved::One(handoff) => safe_lines(*handoff),
            Resolved::Several(_) => String::new(),
        };
        let need = session.attention().need.as_str();
        Ok(safe_json(json!({"session": session, "need": need, "work": work, "activity": activity.changes,
            "as_of": activity.as_of, "command": command, "handoff": handoff})))
    };
    json_of(site.ask(read).await)
}

/// Closes a session, if that was allowed and the page itself asks for it.
async fn close(site: &Site, headers: &HeaderMap, id: &str) -> Response<Body> {
    let is_own = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let is_own = is_own.is_some_and(|origin| site.access.is_own_origin(origin));
    let is_meant = headers.get(ACTION_HEADER).is_some_and(|action| action == "close");
    if !site.allow_actions {
        return text(
            StatusCode::FORBIDDEN,
            "This page only shows; `sessiond web --allow-actions` lets it close sessions.\n",
        );
    }
    if !is_own || !is_meant {
        return text(StatusCode::FORBIDDEN, "Only the page itself may close a session.\n");
    }
    let id = decoded(id);
    json_of(site.ask(move |client| client.close(&id)).await)
}

fn decoded(segment: &str) -> String {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy().into_owned()
}

fn not_found(id: &str) -> ErrorDetail {
    ErrorDetail {
        code: ErrorCode::NotFound,
        message: format!("no session has exactly the id {id}"),
        hint: "open it from the list".to_owned(),
    }
}

impl Site {
    /// Asks the daemon on another thread, because the client blocks.
    async fn ask<T: Send + 'static>(
        &self,
        request: impl FnOnce(&Client) -> Result<T, ErrorDetail> + Send + 'static,
    ) -> Result<T, ErrorDetail> {
        let client = self.client.clone().timeout(std::time::Duration::from_secs(10));
        let asked = tokio::task::spawn_blocking(move || request(&client));
        asked.await.unwrap_or_else(|error| {
            Err(ErrorDetail {
                code: ErrorCode::Internal,
                message: format!("the request could not be sent: {error}"),
                hint: "try again".to_owned(),
            })
        })
    }
}

fn json_of<T: Serialize>(answer: Result<T, ErrorDetail>) -> Response<Body> {
    match answer {
        Ok(answer) => json_body(StatusCode::OK, &answer),
        Err(error) => {
            let status = match error.code {
                ErrorCode::NotFound | ErrorCode::Ambiguous => StatusCode::NOT_FOUND,
                ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
                ErrorCode::Forbidden => StatusCode::FORBIDDEN,
                ErrorCode::SessionClosed | ErrorCode::SessionElsewhere | ErrorCode::Conflict => StatusCode::CONFLICT,
                _ => StatusCode::BAD_GATEWAY,
            };
            json_body(status, &json!({"error": error}))
        }
    }
}

fn json_body(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut response = content("application/json", serde_json::to_string(body).unwrap_or_default());
    *response.status_mut() = status;
    response
}

pub(super) fn text(status: StatusCode, text: &'static str) -> Response<Body> {
    let mut response = content("text/plain; charset=utf-8", text);
    *response.status_mut() = status;
    response
}

fn not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "This method is not possible here.\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

pub(super) fn content(kind: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn with_safe_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", CONTENT_POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}
