//! S3's protocol, as far as `object_store` speaks it: path style, signatures not checked.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Uri};

use crate::Operation;
use crate::objects::{Condition, Listing, Meta, Object, Objects, Page, Refusal};

/// What is asked.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) operation: Operation,
    pub(crate) bucket: String,
    /// All that are named: one, except by a deletion of many. A listing names its prefix.
    pub(crate) keys: Vec<String>,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

/// What is answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(HeaderName, String)>,
    pub(crate) body: Bytes,
    /// Of the object, when there is no body to tell.
    pub(crate) length: Option<u64>,
}

impl Answer {
    pub(crate) fn new(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            length: None,
        }
    }

    fn header(mut self, name: HeaderName, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn xml(body: &str) -> Self {
        let text = format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}");
        Self {
            body: text.into(),
            ..Self::new(200).header(hyper::header::CONTENT_TYPE, "application/xml")
        }
    }

    pub(crate) fn error(status: u16, code: &str) -> Self {
        let body = format!("<Error><Code>{code}</Code><Message>{code}</Message></Error>");
        let answer = Self::xml(&body);
        Self { status, ..answer }
    }
}

/// S3's usual code for a status.
pub(crate) fn code(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "AccessDenied",
        404 => "NoSuchKey",
        409 => "ConditionalRequestConflict",
        412 => "PreconditionFailed",
        429 => "TooManyRequests",
        503 => "SlowDown",
        _ => "InternalError",
    }
}

impl Request {
    pub(crate) fn new(method: &Method, uri: &Uri, headers: HeaderMap) -> Self {
        let path = uri.path().trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        let (bucket, key) = (decode(bucket), decode(key));
        let query: Vec<_> = uri.query().map_or_else(Vec::new, |query| {
            let pairs = query.split('&').filter(|pair| !pair.is_empty());
            pairs
                .map(|pair| {
                    let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                    (decode(name), decode(&value.replace('+', " ")))
                })
                .collect()
        });
        let has = |name: &str| query.iter().any(|(n, _)| n == name);
        let copy = headers.contains_key("x-amz-copy-source");
        let operation = match (method.as_str(), key.is_empty()) {
            ("GET", true) => Operation::List,
            ("POST", true) if has("delete") => Operation::DeleteMany,
            ("PUT", false) if has("uploadId") => Operation::PutPart,
            ("PUT", false) if copy => Operation::Copy,
            ("PUT", false) => Operation::Put,
            ("GET", false) => Operation::Get,
            ("HEAD", false) => Operation::Head,
            ("DELETE", false) if has("uploadId") => Operation::AbortUpload,
            ("DELETE", false) => Operation::Delete,
            ("POST", false) if has("uploads") => Operation::CreateUpload,
            ("POST", false) if has("uploadId") => Operation::CompleteUpload,
            _ => Operation::Other,
        };
        let prefix = query.iter().find(|(name, _)| name == "prefix");
        let listed = prefix.map(|(_, prefix)| prefix.clone());
        let named = if key.is_empty() { listed } else { Some(key) };
        Self {
            operation,
            bucket,
            keys: Vec::from_iter(named),
            query,
            headers,
            body: Bytes::new(),
        }
    }

    /// Takes the body, which may name more keys.
    pub(crate) fn with_body(mut self, body: Bytes) -> Self {
        if self.operation == Operation::DeleteMany {
            let text = String::from_utf8_lossy(&body);
            self.keys = elements(&text, "Key").collect();
        }
        self.body = body;
        self
    }

    fn key(&self) -> &str {
        self.keys.first().map_or("", String::as_str)
    }

    fn query(&self, name: &str) -> Option<String> {
        let found = self.query.iter().find(|(n, _)| n == name);
        found.map(|(_, value)| value.clone())
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn condition(&self) -> Condition {
        match (self.header("if-none-match"), self.header("if-match")) {
            (Some("*"), _) => Condition::Absent,
            (_, Some(etag)) => Condition::Is(etag.to_owned()),
            _ => Condition::None,
        }
    }

    /// The headers that S3 keeps with an object.
    fn kept(&self) -> Vec<(String, String)> {
        const KEPT: [&str; 5] = [
            "cache-control",
            "content-disposition",
            "content-encoding",
            "content-language",
            "content-type",
        ];
        let kept = self.headers.iter().filter(|(name, _)| {
            KEPT.contains(&name.as_str()) || name.as_str().starts_with("x-amz-meta-")
        });
        kept.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
            .collect()
    }

    /// Does what is asked.
    pub(crate) async fn apply(&self, objects: &Objects) -> Answer {
        let done = self.attempt(objects).await;
        done.unwrap_or_else(|refusal| match refusal.status {
            304 => Answer::new(304),
            status => Answer::error(status, refusal.code),
        })
    }

    async fn attempt(&self, objects: &Objects) -> Result<Answer, Refusal> {
        use hyper::header::ETAG;
        let (bucket, key) = (self.bucket.as_str(), self.key());
        let upload = self.query("uploadId").unwrap_or_default();
        let condition = self.condition();
        match self.operation {
            Operation::Put => {
                let put = objects.put(bucket, key, self.body.clone(), self.kept(), &condition);
                Ok(Answer::new(200).header(ETAG, put.await?))
            }
            Operation::Get | Operation::Head => self.get(objects).await,
            Operation::Delete => {
                objects.delete(bucket, key).await?;
                Ok(Answer::new(204))
            }
            Operation::DeleteMany => {
                let mut body = String::from("<DeleteResult>");
                for key in &self.keys {
                    objects.delete(bucket, key).await?;
                    body += &format!("<Deleted><Key>{}</Key></Deleted>", escape(key));
                }
                Ok(Answer::xml(&(body + "</DeleteResult>")))
            }
            Operation::List => {
                let max = self.query("max-keys").and_then(|max| max.parse().ok());
                let listing = Listing {
                    prefix: self.query("prefix").unwrap_or_default(),
                    delimiter: self.query("delimiter"),
                    start_after: self.query("start-after"),
                    token: self.query("continuation-token"),
                    max: max.map_or(1000, |max: usize| max.clamp(1, 1000)),
                };
                Ok(Answer::xml(&page(&objects.list(bucket, &listing).await?)))
            }
            Operation::Copy => {
                let (body, source) = self.source(objects).await?;
                let kept = source.headers;
                let put = objects.put(bucket, key, body, kept, &condition);
                let etag = escape(&put.await?);
                Ok(Answer::xml(&format!(
                    "<CopyObjectResult><ETag>{etag}</ETag></CopyObjectResult>"
                )))
            }
            Operation::CreateUpload => {
                let id = objects.create_upload(bucket, key, self.kept()).await?;
                Ok(Answer::xml(&format!(
                    "<InitiateMultipartUploadResult><UploadId>{id}</UploadId>\
                     </InitiateMultipartUploadResult>"
                )))
            }
            Operation::PutPart => {
                let number = self.query("partNumber").and_then(|n| n.parse().ok());
                let number = number.ok_or(Refusal::new(400, "InvalidArgument"))?;
                if self.headers.contains_key("x-amz-copy-source") {
                    let (body, _) = self.source(objects).await?;
                    let etag = escape(&objects.put_part(&upload, number, body).await?);
                    return Ok(Answer::xml(&format!(
                        "<CopyPartResult><ETag>{etag}</ETag></CopyPartResult>"
                    )));
                }
                let put = objects.put_part(&upload, number, self.body.clone());
                Ok(Answer::new(200).header(ETAG, put.await?))
            }
            Operation::CompleteUpload => {
                let text = String::from_utf8_lossy(&self.body);
                let numbers = elements(&text, "PartNumber").map(|n| n.parse().unwrap_or(0));
                let parts: Vec<_> = numbers.zip(elements(&text, "ETag")).collect();
                let done = objects.complete_upload(bucket, key, &upload, &parts, &condition);
                let etag = escape(&done.await?);
                Ok(Answer::xml(&format!(
                    "<CompleteMultipartUploadResult><ETag>{etag}</ETag>\
                     </CompleteMultipartUploadResult>"
                )))
            }
            Operation::AbortUpload => {
                objects.abort_upload(&upload).await?;
                Ok(Answer::new(204))
            }
            Operation::Other => Err(Refusal::new(501, "NotImplemented")),
        }
    }

    /// What is to be copied.
    async fn source(&self, objects: &Objects) -> Result<(Bytes, Meta), Refusal> {
        let source = self.header("x-amz-copy-source").unwrap_or_default();
        let source = decode(source.trim_start_matches('/'));
        let (bucket, key) = source.split_once('/').ok_or(Refusal::NO_SUCH_KEY)?;
        let (object, body) = read(objects, bucket, key, |object| Ok(0..object.size)).await?;
        Ok((body, object.meta.clone()))
    }

    async fn get(&self, objects: &Objects) -> Result<Answer, Refusal> {
        use hyper::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, LAST_MODIFIED};
        let range_header = self.header("range");
        let head = self.operation == Operation::Head;
        let wanted = |object: &Object| {
            self.check(object)?;
            match range_header {
                Some(text) => range(text, object.size),
                None => Ok(0..object.size),
            }
        };
        let (object, range, body) = if head {
            let object = objects.find(&self.bucket, self.key()).await?;
            let range = wanted(&object)?;
            (object, range, Bytes::new())
        } else {
            let (object, body) = read(objects, &self.bucket, self.key(), wanted).await?;
            let range = wanted(&object)?;
            (object, range, body)
        };
        let partial = range_header.is_some();
        let mut answer = Answer::new(if partial { 206 } else { 200 })
            .header(ETAG, &object.meta.etag)
            .header(ACCEPT_RANGES, "bytes")
            .header(
                LAST_MODIFIED,
                httpdate::fmt_http_date(object.meta.modified()),
            );
        if partial {
            let (start, last, size) = (range.start, range.end - 1, object.size);
            answer = answer.header(CONTENT_RANGE, format!("bytes {start}-{last}/{size}"));
        }
        for (name, value) in &object.meta.headers {
            if let Ok(name) = HeaderName::try_from(name) {
                answer = answer.header(name, value);
            }
        }
        answer.length = head.then_some(range.end - range.start);
        answer.body = body;
        Ok(answer)
    }

    /// Conditions of a read, in the order of RFC 9110, section 13.2.2.
    fn check(&self, object: &Object) -> Result<(), Refusal> {
        const NOT_MODIFIED: Refusal = Refusal::new(304, "NotModified");
        let date = |name| {
            self.header(name)
                .and_then(|text| httpdate::parse_http_date(text).ok())
        };
        let is = |etags: &str| {
            let mut etags = etags.split(',').map(str::trim);
            etags.any(|etag| etag == "*" || etag == object.meta.etag)
        };
        let modified_since = |date: SystemTime| object.meta.modified() > date;
        match self.header("if-match") {
            Some(etags) if !is(etags) => return Err(Refusal::PRECONDITION),
            None if date("if-unmodified-since").is_some_and(modified_since) => {
                return Err(Refusal::PRECONDITION);
            }
            _ => {}
        }
        match self.header("if-none-match") {
            Some(etags) if is(etags) => Err(NOT_MODIFIED),
            None if date("if-modified-since").is_some_and(|date| !modified_since(date)) => {
                Err(NOT_MODIFIED)
            }
            _ => Ok(()),
        }
    }
}

/// Reads the range of an object that `wanted` asks for, of whichever object has the key now.
async fn read(
    objects: &Objects,
    bucket: &str,
    key: &str,
    wanted: impl Fn(&Object) -> Result<std::ops::Range<u64>, Refusal>,
) -> Result<(std::sync::Arc<Object>, Bytes), Refusal> {
    loop {
        let object = objects.find(bucket, key).await?;
        let range = wanted(&object)?;
        if let Some(bytes) = Objects::read(&object, range.start, range.end).await? {
            return Ok((object, bytes));
        }
    }
}

/// A range of bytes, cut to the object's end.
fn range(text: &str, size: u64) -> Result<std::ops::Range<u64>, Refusal> {
    const INVALID: Refusal = Refusal::new(416, "InvalidRange");
    let (start, last) = text
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .ok_or(INVALID)?;
    let number = |text: &str| text.parse::<u64>().map_err(|_| INVALID);
    let range = match (start, last) {
        ("", suffix) => size.saturating_sub(number(suffix)?)..size,
        (start, "") => number(start)?..size,
        (start, last) => number(start)?..number(last)?.saturating_add(1).min(size),
    };
    if range.is_empty() {
        Err(INVALID)
    } else {
        Ok(range)
    }
}

fn page(page: &Page) -> String {
    let mut body = format!(
        "<ListBucketResult><IsTruncated>{}</IsTruncated><KeyCount>{}</KeyCount>",
        page.next.is_some(),
        page.objects.len() + page.prefixes.len()
    );
    for (key, object) in &page.objects {
        body += &format!(
            "<Contents><Key>{}</Key><Size>{}</Size><ETag>{}</ETag>\
             <LastModified>{}</LastModified></Contents>",
            escape(key),
            object.size,
            escape(&object.meta.etag),
            iso_date(object.meta.modified())
        );
    }
    for prefix in &page.prefixes {
        let prefix = escape(prefix);
        body += &format!("<CommonPrefixes><Prefix>{prefix}</Prefix></CommonPrefixes>");
    }
    if let Some(next) = &page.next {
        let next = escape(next);
        body += &format!("<NextContinuationToken>{next}</NextContinuationToken>");
    }
    body + "</ListBucketResult>"
}

/// `2026-11-20T14:05:00Z`; days to dates as in "chrono-Compatible Low-Level Date Algorithms" (Howard
/// Hinnant).
fn iso_date(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = seconds.as_secs();
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

pub(crate) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2)).flatten();
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&apos;",
            c if c.is_ascii_control() => out += &format!("&#{};", c as u32),
            c => out.push(c),
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('&') {
        out += before;
        let Some((name, after)) = after.split_once(';') else {
            return out + "&" + after;
        };
        match name {
            "amp" => out.push('&'),
            "lt" => out.push('<'),
            "gt" => out.push('>'),
            "quot" => out.push('"'),
            "apos" => out.push('\''),
            _ => {
                let number = name
                    .strip_prefix('#')
                    .map(|number| match number.strip_prefix('x') {
                        Some(hex) => u32::from_str_radix(hex, 16),
                        None => number.parse(),
                    });
                out.extend(number.and_then(Result::ok).and_then(char::from_u32));
            }
        }
        rest = after;
    }
    out + rest
}

/// The texts of all elements with this name, in their order.
fn elements<'a>(text: &'a str, name: &str) -> impl Iterator<Item = String> + use<'a> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = text;
    std::iter::from_fn(move || {
        let (_, after) = rest.split_once(&open)?;
        let (inner, after) = after.split_once(&close)?;
        rest = after;
        Some(unescape(inner))
    })
}

/// A header's value, without what it must not have.
pub(crate) fn header_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_183_496, "2026-11-20T14:04:56Z"),
        ] {
            assert_eq!(iso_date(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(range("bytes=2-4", 10), Ok(2..5));
        assert_eq!(range("bytes=2-40", 10), Ok(2..10));
        assert_eq!(range("bytes=2-", 10), Ok(2..10));
        assert_eq!(range("bytes=-3", 10), Ok(7..10));
        for text in ["bytes=10-11", "bytes=4-2", "bytes=a-b", "2-4", "bytes=-0"] {
            assert_eq!(range(text, 10).unwrap_err().status, 416, "{text}");
        }
    }

    #[test]
    fn texts_survive_xml_and_urls() {
        let text = "a <b> & \"c\" 'd' \u{1} é";
        assert_eq!(unescape(&escape(text)), text);
        assert_eq!(unescape("&#x41;&#66;&nothing;&"), "AB&");
        assert_eq!(decode("a%2Fb%20c%C3%A9%zz%4"), "a/b cé%zz%4");
        let found: Vec<_> = elements("<D><Key>a</Key><Key>&lt;</Key><Key>", "Key").collect();
        assert_eq!(found, ["a", "<"]);
    }
}
