//! Sends a notification by one channel.

use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::broadcast;
use url::Url;

use super::http_post;
use crate::config::{Channel, NotifyRule};
use crate::domain::notification::Transition;
use crate::wire::{ChannelTestBody, NotificationBody};

/// How long a command may run before it is killed.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);

/// Sends a test to each rule's channel, at once.
pub(super) async fn test(
    rules: &[NotifyRule],
    transition: &Transition,
    desktop: &broadcast::Sender<NotificationBody>,
) -> Vec<ChannelTestBody> {
    let notification = NotificationBody { occasion: "test".to_owned(), ..NotificationBody::of(transition) };
    let send = async |(number, rule): (usize, &NotifyRule)| {
        let key = transition.key_for(&rule.channel.identity());
        let outcome = send(&rule.channel, &notification, &key, desktop).await;
        ChannelTestBody { rule: number + 1, channel: rule.channel.kind().to_owned(), error: outcome.err() }
    };
    futures_util::future::join_all(rules.iter().enumerate().map(send)).await
}

/// Sends `notification`. `key` is the same for each attempt.
///
/// # Errors
/// One line that shows no URL.
pub(super) async fn send(
    channel: &Channel,
    notification: &NotificationBody,
    key: &str,
    desktop: &broadcast::Sender<NotificationBody>,
) -> Result<(), String> {
    match channel {
        Channel::Desktop => {
            let sent = desktop.send(notification.clone());
            sent.map(drop)
                .map_err(|_| "no desktop is connected; run `sessiond notify-agent` in a user's session".to_owned())
        }
        Channel::Command(words) => run(words, to_json(notification)?).await,
        Channel::Webhook(url) => http_post::post(&parsed(url.reveal())?, to_json(notification)?, key).await,
        Channel::Ntfy(url) => {
            let (server, topic) = server_and_topic(parsed(url.reveal())?)?;
            let message = json!({"topic": topic, "title": notification.title, "message": notification.text,
                "tags": [notification.occasion]});
            http_post::post(&server, message.to_string(), key).await
        }
    }
}

fn to_json(notification: &NotificationBody) -> Result<String, String> {
    serde_json::to_string(notification).map_err(|error| error.to_string())
}

fn parsed(url: &str) -> Result<Url, String> {
    Url::parse(url).map_err(|error| format!("it is not a URL: {error}"))
}

/// ntfy takes JSON, which can hold any title, only at the server's own URL.
fn server_and_topic(mut url: Url) -> Result<(Url, String), String> {
    let encoded = url.path_segments().and_then(|mut path| path.next_back().map(str::to_owned)).unwrap_or_default();
    let topic = percent_encoding::percent_decode_str(&encoded).decode_utf8_lossy().into_owned();
    url.path_segments_mut().map_err(|()| "it has no topic".to_owned())?.pop().push("");
    Ok((url, topic))
}

async fn run(words: &[String], input: String) -> Result<(), String> {
    let (program, arguments) = words.split_first().ok_or("it names no program")?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} cannot be run: {error}"))?;
    let mut stdin = child.stdin.take();
    let talk = async {
        if let Some(stdin) = &mut stdin {
            // A program that does not read has its reasons.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        drop(stdin);
        child.wait().await
    };
    match tokio::time::timeout(COMMAND_TIMEOUT, talk).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(format!("{program} failed: {status}")),
        Ok(Err(error)) => Err(format!("{program} failed: {error}")),
        Err(_) => Err(format!("{program} did not end within {} s", COMMAND_TIMEOUT.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_is_taken_off_the_url() {
        let of = |url: &str| {
            let (server, topic) = server_and_topic(Url::parse(url).unwrap()).unwrap();
            (server.to_string(), topic)
        };
        assert_eq!(of("https://ntfy.sh/mine"), ("https://ntfy.sh/".to_owned(), "mine".to_owned()));
        assert_eq!(
            of("https://host:8443/ntfy/my%20topic"),
            ("https://host:8443/ntfy/".to_owned(), "my topic".to_owned())
        );
    }
}
