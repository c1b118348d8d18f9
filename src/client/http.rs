//! A minimal HTTP/1.1 client: one request and its response over any blocking stream.

use std::io::{self, BufRead, Read, Write};

use uuid::Uuid;

const MAX_HEAD: u64 = 64 << 10;
const MAX_HEADERS: usize = 64;
const MAX_LINE: u64 = 4 << 10;

/// A request; its body is JSON.
#[derive(Debug)]
pub struct HttpRequest {
    pub(crate) method: &'static str,
    pub(crate) target: String,
    pub(crate) body: Option<Vec<u8>>,
    /// The daemon carries out requests with the same key only once.
    pub idempotency_key: Option<Uuid>,
}

impl HttpRequest {
    /// Sends the request in one write. A failed write to a connection that the daemon closed is not an error: the daemon
    /// may have responded before it read everything, and that response is read next.
    pub fn send(&self, stream: &mut impl Write) -> io::Result<()> {
        match stream.write_all(&self.bytes()) {
            Err(error) if is_disconnect(&error) => Ok(()),
            sent => sent,
        }
    }

    fn bytes(&self) -> Vec<u8> {
        let content = if self.body.is_some() { "Content-Type: application/json\r\n" } else { "" };
        let key = self.idempotency_key.map_or(String::new(), |key| format!("Idempotency-Key: {key}\r\n"));
        let body = self.body.as_deref().unwrap_or_default();
        let mut bytes = format!(
            "{} {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: sessiond/{}\r\nConnection: close\r\n{content}{key}Content-Length: {}\r\n\r\n",
            self.method,
            self.target,
            env!("CARGO_PKG_VERSION"),
            body.len(),
        )
        .into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

/// Whether the error means that the other end closed the connection.
pub fn is_disconnect(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

/// A response of which only the head has been read.
#[derive(Debug)]
pub struct HttpResponse<R> {
    /// The status code, such as 200.
    pub status: u16,
    /// The body, not read yet.
    pub body: ResponseBody<R>,
}

impl<R: BufRead> HttpResponse<R> {
    /// # Errors
    /// The head is no HTTP response, or the connection ends within it.
    pub fn read(mut reader: R) -> io::Result<Self> {
        let head = read_head(&mut reader)?;
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut headers);
        parsed.parse(&head).map_err(|error| invalid_data(format!("not an HTTP response ({error})")))?;
        let status =
            parsed.code.filter(|code| *code >= 100).ok_or_else(|| invalid_data("a response without a status"))?;
        let framing = Framing::of(status, parsed.headers)?;
        Ok(Self { status, body: ResponseBody { reader, framing } })
    }
}

/// Everything up to the empty line.
fn read_head(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let mut limited = reader.take(MAX_HEAD);
    loop {
        let start = head.len();
        limited.read_until(b'\n', &mut head)?;
        match &head[start..] {
            b"\r\n" | b"\n" if start > 0 => return Ok(head),
            line if line.ends_with(b"\n") => {}
            _ if limited.limit() == 0 => return Err(invalid_data("the head of the response is too long")),
            _ => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// How the end of the body is determined.
#[derive(Debug, PartialEq, Eq)]
enum Framing {
    /// This many bytes are left.
    Length(u64),
    /// The size line of the next chunk is next.
    ChunkSize,
    /// This many bytes of the current chunk are left.
    Chunk(u64),
    /// It ends with the connection.
    ToEnd,
}

impl Framing {
    fn of(status: u16, headers: &[httparse::Header<'_>]) -> io::Result<Self> {
        let all = |name: &'static str| {
            headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
        };
        if matches!(status, 204 | 304) {
            return Ok(Self::Length(0));
        }
        if let Some(coding) = all("transfer-encoding").next() {
            let chunked = coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
            return if chunked { Ok(Self::ChunkSize) } else { Err(invalid_data("an unknown transfer encoding")) };
        }
        let mut lengths = all("content-length").map(content_length);
        match lengths.next().transpose()? {
            None => Ok(Self::ToEnd),
            Some(length) if lengths.all(|other| matches!(other, Ok(other) if other == length)) => {
                Ok(Self::Length(length))
            }
            Some(_) => Err(invalid_data("two lengths that disagree")),
        }
    }
}

fn content_length(value: &[u8]) -> io::Result<u64> {
    let digits = std::str::from_utf8(value.trim_ascii()).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| invalid_data("a length that is not a number"))
}

/// The body of a response, read as it arrives.
#[derive(Debug)]
pub struct ResponseBody<R> {
    reader: R,
    framing: Framing,
}

impl<R: BufRead> Read for ResponseBody<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::ChunkSize {
            self.framing = next_chunk(&mut self.reader)?;
        }
        let (Framing::Length(left) | Framing::Chunk(left)) = &mut self.framing else {
            return self.reader.read(buffer);
        };
        let read = (&mut self.reader).take(*left).read(buffer)?;
        if read == 0 && *left > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        *left -= read as u64;
        if self.framing == Framing::Chunk(0) {
            end_of_chunk(&mut self.reader)?;
            self.framing = Framing::ChunkSize;
        }
        Ok(read)
    }
}

/// Reads a chunk's size line; the last chunk, of size 0, ends the body.
fn next_chunk(reader: &mut impl BufRead) -> io::Result<Framing> {
    let line = read_line(reader)?;
    let size = line.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let size = std::str::from_utf8(size).ok().filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
    match size.and_then(|text| u64::from_str_radix(text, 16).ok()) {
        None => Err(invalid_data("a chunk without a size")),
        Some(0) => skip_trailers(reader).map(|()| Framing::Length(0)),
        Some(size) => Ok(Framing::Chunk(size)),
    }
}

fn end_of_chunk(reader: &mut impl BufRead) -> io::Result<()> {
    if read_line(reader)?.is_empty() { Ok(()) } else { Err(invalid_data("a chunk longer than its size")) }
}

fn skip_trailers(reader: &mut impl BufRead) -> io::Result<()> {
    for _ in 0..MAX_HEADERS {
        if read_line(reader)?.is_empty() {
            return Ok(());
        }
    }
    Err(invalid_data("too many trailers"))
}

/// A line without its end.
fn read_line(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut limited = reader.take(MAX_LINE);
    limited.read_until(b'\n', &mut line)?;
    if line.pop_if(|b| *b == b'\n').is_none() {
        let too_long = limited.limit() == 0;
        return Err(if too_long {
            invalid_data("a line that is too long")
        } else {
            io::ErrorKind::UnexpectedEof.into()
        });
    }
    line.pop_if(|b| *b == b'\r');
    Ok(line)
}

fn invalid_data(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufReader, Cursor};

    /// Returns one byte from each read.
    struct OneByteReader<'a>(&'a [u8]);

    impl Read for OneByteReader<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let take = usize::from(!buffer.is_empty()).min(self.0.len());
            buffer[..take].copy_from_slice(&self.0[..take]);
            self.0 = &self.0[take..];
            Ok(take)
        }
    }

    fn read(text: &str) -> io::Result<(u16, String)> {
        let whole = read_from(Cursor::new(text.as_bytes()));
        let dripped = read_from(BufReader::with_capacity(1, OneByteReader(text.as_bytes())));
        match (&whole, &dripped) {
            (Ok(a), Ok(b)) => assert_eq!(a, b),
            (Err(a), Err(b)) => assert_eq!(a.kind(), b.kind()),
            _ => panic!("{whole:?} but {dripped:?}"),
        }
        whole
    }

    fn read_from(reader: impl BufRead) -> io::Result<(u16, String)> {
        let mut response = HttpResponse::read(reader)?;
        let mut body = String::new();
        response.body.read_to_string(&mut body)?;
        Ok((response.status, body))
    }

    #[test]
    fn reads_complete_responses() {
        for (text, status, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more", 200, "hello"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\nContent-Length: 2\r\n\r\n{}", 200, "{}"),
            ("HTTP/1.1 204 No Content\r\n\r\nleftover", 204, ""),
            ("HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\nto the end", 500, "to the end"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\nA;x=y\r\n, chunked!\r\n0\r\nT: 1\r\n\r\n",
                200,
                "hello, chunked!",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, ""),
        ] {
            assert_eq!(read(text).unwrap(), (status, body.to_owned()), "{text}");
        }
    }

    #[test]
    fn reports_incomplete_responses() {
        for text in [
            "",
            "HTTP/1.1 200",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
        ] {
            assert_eq!(read(text).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{text}");
        }
    }

    #[test]
    fn rejects_invalid_responses() {
        let long_head = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(70_000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(65));
        let long_line =
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000));
        for text in [
            "SSH-2.0-OpenSSH_9\r\n\r\n",
            "HTTP/1.1 004 No Content\r\n\r\n",
            "\r\n\r\n",
            &long_head,
            &many,
            &long_line,
            "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: \r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 4\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
        ] {
            assert_eq!(read(text).unwrap_err().kind(), io::ErrorKind::InvalidData, "{text}");
        }
    }
}
