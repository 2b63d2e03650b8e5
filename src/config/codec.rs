//! The types of values: how each is read from text, and written.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::keys::HIDDEN;
use crate::store::Kind;

/// A type of values.
///
/// Invariant: `parse(text(v)) == v`, where no text at all stands for the empty one.
pub(super) trait Codec {
    /// What the program sees.
    type Value;
    /// What the text must be, in words that complete "expected …".
    const EXPECTED: &'static str;
    /// Reads a value; `None`: the text does not fit.
    fn parse(text: &str) -> Option<Self::Value>;
    /// Writes a value for people; `None`: unset.
    fn text(value: &Self::Value) -> Option<String>;
    /// Writes a value for programs.
    fn json(value: &Self::Value) -> Json;
}

macro_rules! plain {
    ($($ty:ty, $expected:literal;)*) => {$(
        impl Codec for $ty {
            type Value = Self;
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn text(value: &Self) -> Option<String> {
                Some(value.to_string())
            }
            fn json(value: &Self) -> Json {
                json!(value)
            }
        }
    )*};
}

plain! {
    i16, "a whole number";
    i32, "a whole number";
    u32, "a whole number, 0 or more";
    bool, "true or false";
}

/// A whole number, or nothing.
pub(super) struct OptInt;

impl Codec for OptInt {
    type Value = Option<i32>;
    const EXPECTED: &'static str = i32::EXPECTED;
    fn parse(text: &str) -> Option<Option<i32>> {
        match text {
            "" => Some(None),
            text => i32::parse(text).map(Some),
        }
    }
    fn text(value: &Option<i32>) -> Option<String> {
        value.as_ref().and_then(i32::text)
    }
    fn json(value: &Option<i32>) -> Json {
        json!(value)
    }
}

/// Text that may not be empty.
pub(super) struct Text;

impl Codec for Text {
    type Value = String;
    const EXPECTED: &'static str = "text";
    fn parse(text: &str) -> Option<String> {
        (!text.is_empty()).then(|| text.to_owned())
    }
    fn text(value: &String) -> Option<String> {
        Some(value.clone())
    }
    fn json(value: &String) -> Json {
        json!(value)
    }
}

/// Text, or nothing.
pub(super) struct OptText;

impl Codec for OptText {
    type Value = Option<String>;
    const EXPECTED: &'static str = "text";
    fn parse(text: &str) -> Option<Option<String>> {
        Some(Text::parse(text))
    }
    fn text(value: &Option<String>) -> Option<String> {
        value.clone()
    }
    fn json(value: &Option<String>) -> Json {
        json!(value)
    }
}

/// Text that is neither printed nor logged.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

/// A secret, or nothing. Where values are printed, it reads as unset or hidden.
pub(super) struct OptSecret;

impl Codec for OptSecret {
    type Value = Option<Secret>;
    const EXPECTED: &'static str = "text, which is not shown again";
    fn parse(text: &str) -> Option<Option<Secret>> {
        Some(Text::parse(text).map(Secret))
    }
    fn text(value: &Option<Secret>) -> Option<String> {
        value.as_ref().map(|_| HIDDEN.to_owned())
    }
    fn json(value: &Option<Secret>) -> Json {
        json!(value.as_ref().map(|_| HIDDEN))
    }
}

/// A path.
pub(super) struct PathText;

impl Codec for PathText {
    type Value = PathBuf;
    const EXPECTED: &'static str = "a path";
    fn parse(text: &str) -> Option<PathBuf> {
        Text::parse(text).map(PathBuf::from)
    }
    fn text(value: &PathBuf) -> Option<String> {
        Some(value.display().to_string())
    }
    fn json(value: &PathBuf) -> Json {
        json!(value.display().to_string())
    }
}

/// Splits a number from the unit behind it.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim()))
}

/// A size in bytes.
pub(super) struct Bytes;

const BINARY: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

impl Codec for Bytes {
    type Value = u64;
    const EXPECTED: &'static str = "a size: bytes, or a number with KiB, MiB, GiB or TiB";
    fn parse(text: &str) -> Option<u64> {
        let (number, unit) = number_and_unit(text)?;
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            unit => {
                let found = BINARY
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(unit));
                found?.1
            }
        };
        number.checked_mul(factor)
    }
    fn text(value: &u64) -> Option<String> {
        let unit = BINARY
            .iter()
            .find(|(_, n)| *value > 0 && value.is_multiple_of(*n));
        Some(unit.map_or_else(
            || value.to_string(),
            |(name, n)| format!("{}{name}", value / n),
        ))
    }
    fn json(value: &u64) -> Json {
        json!(value)
    }
}

/// A size in bytes, or -1 for no bound.
pub(super) struct BytesOrNone;

impl Codec for BytesOrNone {
    type Value = Option<u64>;
    const EXPECTED: &'static str = "-1, or a size: bytes, or a number with KiB, MiB, GiB or TiB";
    fn parse(text: &str) -> Option<Option<u64>> {
        if text.trim() == "-1" {
            return Some(None);
        }
        Bytes::parse(text).map(Some)
    }
    fn text(value: &Option<u64>) -> Option<String> {
        value
            .as_ref()
            .map_or_else(|| Some("-1".to_owned()), Bytes::text)
    }
    fn json(value: &Option<u64>) -> Json {
        value.map_or(json!(-1), |bytes| json!(bytes))
    }
}

/// A duration; a number without a unit is in units of `bare_ms`.
fn parse_duration(text: &str, bare_ms: u64) -> Option<Duration> {
    let (number, unit) = number_and_unit(text)?;
    let unit_ms = match unit {
        "" => bare_ms,
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let ms = number.checked_mul(unit_ms)?;
    // Kafka's times are signed; nothing in the program may overflow them.
    (ms <= i64::MAX as u64).then(|| Duration::from_millis(ms))
}

/// A duration in milliseconds.
pub(super) struct Ms;

impl Codec for Ms {
    type Value = Duration;
    const EXPECTED: &'static str = "a time: milliseconds, or a number with ms, s, m, h or d";
    fn parse(text: &str) -> Option<Duration> {
        parse_duration(text, 1)
    }
    fn text(value: &Duration) -> Option<String> {
        Some(value.as_millis().to_string())
    }
    fn json(value: &Duration) -> Json {
        json!(value.as_millis() as u64)
    }
}

/// A duration in milliseconds, or -1 for no bound.
pub(super) struct MsOrNone;

impl Codec for MsOrNone {
    type Value = Option<Duration>;
    const EXPECTED: &'static str = "-1, or a time: milliseconds, or a number with ms, s, m, h or d";
    fn parse(text: &str) -> Option<Option<Duration>> {
        if text.trim() == "-1" {
            return Some(None);
        }
        Ms::parse(text).map(Some)
    }
    fn text(value: &Option<Duration>) -> Option<String> {
        value
            .as_ref()
            .map_or_else(|| Some("-1".to_owned()), Ms::text)
    }
    fn json(value: &Option<Duration>) -> Json {
        value.as_ref().map_or(json!(-1), Ms::json)
    }
}

/// A duration in minutes.
pub(super) struct Minutes;

impl Codec for Minutes {
    type Value = Duration;
    const EXPECTED: &'static str = "a time: minutes, or a number with m, h or d";
    fn parse(text: &str) -> Option<Duration> {
        parse_duration(text, 60_000).filter(|time| time.as_millis().is_multiple_of(60_000))
    }
    fn text(value: &Duration) -> Option<String> {
        Some((value.as_secs() / 60).to_string())
    }
    fn json(value: &Duration) -> Json {
        json!(value.as_secs() / 60)
    }
}

/// A host and a port. The host of an IPv6 address is kept without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address.
    pub host: String,
    /// The port; 0 lets the system choose when binding.
    pub port: u16,
}

impl Address {
    /// Reads `host:port` or `[v6]:port`.
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            // More colons without brackets: nobody can say where the port begins.
            None if host.contains(':') => return None,
            None => host,
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || "/@,[]".contains(c)) {
            return None;
        }
        if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    /// Whether it stands for every address of the machine, which nobody can connect to.
    pub fn is_wildcard(&self) -> bool {
        self.host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_unspecified())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Codec for Address {
    type Value = Self;
    const EXPECTED: &'static str = "an address: HOST:PORT, or [IPV6]:PORT";
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }
    fn text(value: &Self) -> Option<String> {
        Some(value.to_string())
    }
    fn json(value: &Self) -> Json {
        json!(value.to_string())
    }
}

/// One of Kafka's listeners: an address with an optional protocol, of which there is one.
pub(super) struct Listener;

impl Codec for Listener {
    type Value = Address;
    const EXPECTED: &'static str =
        "one address: PLAINTEXT://HOST:PORT, or HOST:PORT (other protocols are not supported)";
    fn parse(text: &str) -> Option<Address> {
        let text = text.trim();
        let address = text.strip_prefix("PLAINTEXT://").unwrap_or(text);
        // Kafka writes "every address" as an empty host.
        if address.starts_with(':') {
            return Address::parse(&format!("0.0.0.0{address}"));
        }
        Address::parse(address)
    }
    fn text(value: &Address) -> Option<String> {
        Some(format!("PLAINTEXT://{value}"))
    }
    fn json(value: &Address) -> Json {
        json!(Self::text(value))
    }
}

/// A [`Listener`], or nothing.
pub(super) struct OptListener;

impl Codec for OptListener {
    type Value = Option<Address>;
    const EXPECTED: &'static str = Listener::EXPECTED;
    fn parse(text: &str) -> Option<Option<Address>> {
        if text.trim().is_empty() {
            return Some(None);
        }
        Listener::parse(text).map(Some)
    }
    fn text(value: &Option<Address>) -> Option<String> {
        value.as_ref().and_then(Listener::text)
    }
    fn json(value: &Option<Address>) -> Json {
        json!(Self::text(value))
    }
}

/// The items of a comma-separated list.
fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

/// A member of the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its `node.id`.
    pub id: i32,
    /// Where other nodes reach its `peer.listen`.
    pub address: Address,
}

impl fmt::Display for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.id, self.address)
    }
}

/// The members of the metadata quorum.
pub(super) struct Voters;

impl Codec for Voters {
    type Value = Vec<Voter>;
    const EXPECTED: &'static str = "a list: ID@HOST:PORT,ID@HOST:PORT,…";
    fn parse(text: &str) -> Option<Vec<Voter>> {
        let voter = |item: &str| {
            let (id, address) = item.split_once('@')?;
            Some(Voter {
                id: id.parse().ok()?,
                address: Address::parse(address)?,
            })
        };
        items(text).map(voter).collect()
    }
    fn text(value: &Vec<Voter>) -> Option<String> {
        let text: Vec<String> = value.iter().map(Voter::to_string).collect();
        (!text.is_empty()).then(|| text.join(","))
    }
    fn json(value: &Vec<Voter>) -> Json {
        let text: Vec<String> = value.iter().map(Voter::to_string).collect();
        json!(text)
    }
}

/// What a node does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Serves Kafka clients.
    pub gateway: bool,
    /// Votes in the metadata quorum.
    pub metadata: bool,
    /// Retention and collection.
    pub compactor: bool,
}

impl Roles {
    fn names(self) -> Vec<&'static str> {
        let all = [
            ("gateway", self.gateway),
            ("metadata", self.metadata),
            ("compactor", self.compactor),
        ];
        let chosen = all.into_iter().filter(|(_, on)| *on);
        chosen.map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

impl Codec for Roles {
    type Value = Self;
    const EXPECTED: &'static str = "a list of at least one of: gateway,metadata,compactor";
    fn parse(text: &str) -> Option<Self> {
        let mut roles = Self::default();
        for item in items(text) {
            match item {
                "gateway" => roles.gateway = true,
                "metadata" => roles.metadata = true,
                "compactor" => roles.compactor = true,
                _ => return None,
            }
        }
        (roles != Self::default()).then_some(roles)
    }
    fn text(value: &Self) -> Option<String> {
        Some(value.to_string())
    }
    fn json(value: &Self) -> Json {
        json!(value.names())
    }
}

macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, $expected:literal { $($(#[$vdoc:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name {
            $($(#[$vdoc])* $variant,)*
        }

        impl $name {
            /// The word for it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl Codec for $name {
            type Value = Self;
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)*
                    _ => None,
                }
            }
            fn text(value: &Self) -> Option<String> {
                Some(value.as_str().to_owned())
            }
            fn json(value: &Self) -> Json {
                json!(value.as_str())
            }
        }
    };
}

choice! {
    /// When `acks=all` is answered.
    Durability, "object or local" {
        /// When the segment is in the object store and committed.
        Object = "object",
        /// When the record is synced to the gateway's disk and committed.
        Local = "local",
    }
}

choice! {
    /// What clients of the table catalog are given to read the store with.
    CatalogCredentials, "none or static" {
        /// Nothing: they have their own.
        None = "none",
        /// A key that the operator made for readers.
        Static = "static",
    }
}

choice! {
    /// What becomes of cold records.
    TableMode, "shared, copy or off" {
        /// They move into a table.
        Shared = "shared",
        /// The same, and the table is published elsewhere too.
        Copy = "copy",
        /// They stay in segments.
        Off = "off",
    }
}

choice! {
    /// The form of the program's own log.
    LogFormat, "text or json" {
        /// For people.
        Text = "text",
        /// One object per line.
        Json = "json",
    }
}

/// How many uploads per second the flush pipeline aims at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutBudget {
    /// By the kind of store.
    Auto,
    /// As many as come.
    Unlimited,
    /// This many each second, sustained; at least 1.
    PerSecond(u32),
}

impl PutBudget {
    /// Uploads per second, and how many may be saved up; `None`: no limit.
    ///
    /// A directory's files cost nothing, but each is a file and several entries of the quorum's
    /// state for as long as retention keeps it: 1 000 records a second made 16 million a day.
    pub fn of(self, kind: Kind) -> Option<(u32, u32)> {
        match (self, kind) {
            (Self::PerSecond(n), _) => Some((n, n)),
            (Self::Auto, Kind::Cloud) => Some((6, 6)),
            (Self::Auto, Kind::Directory) => Some((20, 10_000)),
            (Self::Auto, Kind::Memory) | (Self::Unlimited, _) => None,
        }
    }
}

impl Codec for PutBudget {
    type Value = Self;
    const EXPECTED: &'static str = "auto, unlimited, or a whole number, 1 or more";
    fn parse(text: &str) -> Option<Self> {
        match text {
            "auto" => Some(Self::Auto),
            "unlimited" => Some(Self::Unlimited),
            number => number.parse().ok().filter(|n| *n > 0).map(Self::PerSecond),
        }
    }
    fn text(value: &Self) -> Option<String> {
        Some(match value {
            Self::Auto => "auto".to_owned(),
            Self::Unlimited => "unlimited".to_owned(),
            Self::PerSecond(n) => n.to_string(),
        })
    }
    fn json(value: &Self) -> Json {
        match value {
            Self::PerSecond(n) => json!(n),
            other => json!(Self::text(other)),
        }
    }
}
