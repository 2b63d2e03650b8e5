//! Which zone a client is in.
//!
//! A consumer tells its zone in every Fetch (`rack.id`, from version 11 on). A producer has no field
//! for it: any client may have `zone=ZONE` in its `client.id`. Metadata, which decides where a client
//! sends its requests, comes without the rack, so what a Fetch said is remembered by the client's
//! address and `client.id`, for its next Metadata.
//!
//! Nothing depends on it being right: any gateway serves everyone.
//!
//! Source: KIP-392.

use std::collections::HashMap;
use std::net::IpAddr;

use parking_lot::Mutex;

/// Clients that are remembered.
const CLIENTS_MAX: usize = 8192;
/// Longer names are not remembered, nor believed to be of zones.
const NAME_MAX: usize = 255;

type Generation = HashMap<(IpAddr, String), String>;

/// The zones of clients that have told theirs. Forgets the older half when it is full.
#[derive(Debug, Default)]
pub(crate) struct Zones {
    inner: Mutex<(Generation, Generation)>,
}

impl Zones {
    /// A client has told its zone.
    pub(crate) fn learn(&self, host: IpAddr, client_id: &str, zone: &str) {
        if zone.is_empty() || zone.len() > NAME_MAX || client_id.len() > NAME_MAX {
            return;
        }
        let (young, old) = &mut *self.inner.lock();
        let key = (host, client_id.to_owned());
        if young.get(&key).is_some_and(|known| known == zone) {
            return;
        }
        if young.len() >= CLIENTS_MAX / 2 {
            *old = std::mem::take(young);
        }
        young.insert(key, zone.to_owned());
    }

    /// The zone of a client, if its `client.id` says it, or else a Fetch of it did.
    pub(crate) fn of(&self, host: IpAddr, client_id: &str) -> Option<String> {
        if let Some(zone) = told(client_id) {
            return Some(zone.to_owned());
        }
        if client_id.len() > NAME_MAX {
            return None;
        }
        let (young, old) = &*self.inner.lock();
        let key = (host, client_id.to_owned());
        young.get(&key).or_else(|| old.get(&key)).cloned()
    }
}

/// The zone in a `client.id`: what follows `zone=`, at the beginning or behind anything but a letter
/// or digit, up to a comma, semicolon or white space.
fn told(client_id: &str) -> Option<&str> {
    const KEY: &str = "zone=";
    let at = client_id.match_indices(KEY).map(|(at, _)| at).find(|&at| {
        let before = client_id[..at].chars().next_back();
        !before.is_some_and(char::is_alphanumeric)
    })?;
    let value = &client_id[at + KEY.len()..];
    let end = value.find(|c: char| c == ',' || c == ';' || c.is_whitespace());
    let zone = &value[..end.unwrap_or(value.len())];
    (!zone.is_empty() && zone.len() <= NAME_MAX).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_id_may_say_the_zone() {
        for (client_id, zone) in [
            ("zone=a", Some("a")),
            ("app,zone=eu-west-1a", Some("eu-west-1a")),
            ("app frazil.zone=eu-west-1a;v=3", Some("eu-west-1a")),
            ("app,zone=a b", Some("a")),
            ("timezone=utc", None),
            ("timezone=utc,zone=b", Some("b")),
            ("zone=", None),
            ("zone=,x", None),
            ("app", None),
            ("", None),
            ("\u{e9}zone=x", None),
        ] {
            assert_eq!(told(client_id), zone, "{client_id:?}");
        }
        assert_eq!(told(&format!("zone={}", "z".repeat(NAME_MAX + 1))), None);
    }

    #[test]
    fn what_a_fetch_said_is_remembered_within_bounds() {
        let zones = Zones::default();
        let host = IpAddr::from([10, 0, 0, 1]);
        assert_eq!(zones.of(host, "c"), None);
        zones.learn(host, "c", "a");
        assert_eq!(zones.of(host, "c").as_deref(), Some("a"));
        assert_eq!(zones.of(IpAddr::from([10, 0, 0, 2]), "c"), None);
        // It has moved.
        zones.learn(host, "c", "b");
        assert_eq!(zones.of(host, "c").as_deref(), Some("b"));
        for client in 0..3 * CLIENTS_MAX {
            zones.learn(host, &client.to_string(), "z");
        }
        let newest = (3 * CLIENTS_MAX - 1).to_string();
        assert_eq!(zones.of(host, &newest).as_deref(), Some("z"));
        assert_eq!(zones.of(host, "c"), None);
        zones.learn(host, &"n".repeat(NAME_MAX + 1), "z");
        zones.learn(host, "long", &"n".repeat(NAME_MAX + 1));
        assert_eq!(zones.of(host, "long"), None);
        let inner = zones.inner.lock();
        assert!(inner.0.len() + inner.1.len() <= CLIENTS_MAX);
    }
}
